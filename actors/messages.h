// The border between bytes and the actors: envelopes are parsed, checked against the model and turned into C++ structs
// here, so that nothing behind it meets a value out of bounds. And the way back. Pure; any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/lane_order.h"
#include "actors/sampling_codec.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/token_range.h"
#include "model/engine.h"
#include "model/sampling_params.h"
#include "proto/control.pb.h"

namespace runahead {

inline constexpr uint32_t kMessagesVersion = 9;  // Hello::protocol_version; unlike versions refuse each other

// One end of a K/V hop: who is at the other side.
struct KvHop {
  std::string address;  // KvTransport::address() of the peer
  StreamToken stream_token;
  WorkerId worker = 0;
};

// Of the prefixes that a worker keeps (actors/coordinator/worker_prefixes.h): what an attempt reads, leaves behind and ends.
struct PrefixOrder {
  uint64_t from = 0;  // the first `pages` of each layer are those of this one; 0: of none
  int32_t pages = 0;
  uint64_t keep = 0;  // keep its full pages under this number; 0: do not
  uint64_t keep_prompt = 0;  // likewise those of the prompt, as soon as they are there; decode worker
  std::vector<uint64_t> drop;
};

// RunChainStep, checked: what one rank does in one attempt.
struct ChainStep {
  AttemptId attempt;
  int32_t rank = 0, num_ranks = 0;
  TokenRange chunk;  // this rank's own tokens
  std::vector<TokenId> tokens;  // [chunk.size()]
  KvHop upstream;  // rank > 0, or the decode worker, that gives rank 0 pages which it keeps
  KvHop downstream;  // the next rank, or the decode worker
  SamplingParams sampling;  // last rank
  std::vector<TokenId> prompt;  // last rank, if a penalty or a grammar is in use: the whole prompt of this attempt
  int32_t prompt_len_original = 0;
  Time deadline{0};
  LaneOrder order;
  std::optional<int32_t> prompt_logprobs;  // wanted: so many alternatives with each
  TokenId next_token = 0;  // behind the chunk, for them; not of the last rank
  PrefixOrder prefix;  // only rank 0 begins behind one, only the last rank keeps one
  int32_t downstream_has = 0;  // last rank: first pages of each layer that the decode worker keeps

  bool is_last_rank() const { return rank == num_ranks - 1; }
  // Rows whose hidden state is needed behind the last layer, and whose next token is one of the prompt.
  int32_t scored_rows() const { return prompt_logprobs ? chunk.size() - (is_last_rank() ? 1 : 0) : 0; }
  TokenId token_behind(int32_t row) const {
    return row + 1 < chunk.size() ? tokens[static_cast<size_t>(row) + 1] : next_token;
  }
  int32_t prefix_pages() const { return chunk.first_page(); }  // a layer, received or kept
  int32_t full_pages() const { return chunk.end / kPageTokens; }
};

// RunDecode, checked.
struct DecodeOrder {
  AttemptId attempt;
  int32_t prompt_len = 0;
  KvHop upstream;
  SamplingParams sampling;
  int32_t max_new_tokens = 0;  // of this attempt, the first one included
  std::vector<TokenId> stop_tokens;
  std::vector<TokenId> prompt;  // [prompt_len]
  int32_t prompt_len_original = 0;
  Time deadline{0};
  PrefixOrder prefix;
  // Rank 0, which gets pages [beginning_from, prefix.pages) of each layer from here; no address: it does not.
  KvHop beginning;
  int32_t beginning_from = 0;

  bool gives_beginning() const { return !beginning.address.empty(); }
  int32_t full_pages() const { return prompt_len / kPageTokens; }
};

// Why an attempt ended badly, and which peer is to blame (0: nobody).
struct Failure {
  Error error;
  WorkerId blamed = 0;
};

proto::Envelope envelope(AttemptId attempt);
AttemptId attempt_of(const proto::Envelope& message);
std::string serialize(const proto::Envelope& message);
Result<proto::Envelope> parse_envelope(const std::string& bytes);

// Of messages, as proto/control.proto writes them: "run_chain_step". That of a serialised envelope; empty if it is none.
std::span<const std::string_view> message_names();
std::string_view message_name(const std::string& bytes);

// kInvalidArgument with what is wrong. `now` is this machine's: deadlines travel as durations.
Result<ChainStep> parse_chain_step(const proto::Envelope& message, const ModelShape& shape, Time now);
Result<DecodeOrder> parse_decode_order(const proto::Envelope& message, const ModelShape& shape, Time now);

// Does the choice of a token depend on the tokens before it?
bool depends_on_tokens(const SamplingParams& sampling);

void encode(const Failure& from, proto::Failure& to);
Failure decode(const proto::Failure& from);

}  // namespace runahead
