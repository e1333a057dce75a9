// What the gateway sees of the actors: InferenceService takes requests of token ids and gives token streams back. Text
// (chat template, tokenizer, stop strings) is the gateway's; nothing here knows it.
//   threads  the process's io_context thread.
//   owner    the caller shares a TokenStream with the coordinator; dropping it or cancel() ends the request everywhere.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "actors/ttft.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/task.h"
#include "base/token_range.h"
#include "model/sampling_params.h"
#include "planner/strategies.h"

namespace runahead {

struct InferenceRequest {
  std::string external_id;  // "chatcmpl-...", "job-...": for logs and people
  std::string trace_id;  // W3C's, 32 hex digits, for logs; empty: none
  std::vector<TokenId> prompt;  // not empty, ids checked against the vocabulary
  int32_t max_new_tokens = 16;  // prompt + max_new_tokens <= context_len, checked by submit()
  SamplingParams sampling;  // validated
  std::optional<int32_t> prompt_logprobs;  // wanted of the prompt's tokens: so many alternatives with each
  std::vector<TokenId> stop_tokens;  // end of generation; empty: none (ignore_eos)
  Strategy strategy = Strategy::kBalanced;  // "auto": weighs every number of ranks, one included
  std::vector<int32_t> cuts;  // kByHand: inner cut positions, multiples of kPageTokens
  int32_t workers_max = 0;  // ranks at most; 0: as many as help
  std::string cache_salt;  // only requests of one salt share the pages of a common beginning
  int64_t batch_tokens = 0;  // of all prompts that came together, which share one place; 0: this one alone
  Duration deadline{0};  // from submit(); 0: limits::kRequestDeadline
  Time received_at{0};  // first byte of the request parsed: TTFT starts here
  Duration tokenize_time{0};  // template and tokenizer, part of the time since received_at
};

enum class FinishReason { kStop, kLength, kAbort };

struct RankReport {
  int32_t rank = 0;
  std::string worker;  // its name, for people
  std::string device;
  TokenRange chunk;
  double compute_seconds = 0;
  double kv_wait_seconds = 0;
  uint64_t kv_sent_bytes = 0;
  double kv_wire_seconds = 0;  // with those on their way; 0: not measured
  double lane_wait_seconds = 0;  // while other requests computed
  double sample_seconds = 0;
  double total_seconds = 0;  // of its work: of the last rank until the first token, else until its pages were sent
  double kv_send_seconds = 0;  // from the first page sent to the last
  uint64_t kv_received_bytes = 0;
  // When the coordinator had its reports, since the request was received: of that work, and of its pages. 0: never.
  double worked_at_seconds = 0, sent_at_seconds = 0;
};

// Seconds from the request's first byte to what the coordinator saw, in this order. 0: it has not come to that.
struct RequestMarks {
  double submitted = 0, plan_started = 0, dispatched = 0, first_token = 0, written = 0, second_token = 0;
};

// Where the time to first token went.
struct TtftReport {
  TtftStages stages;
  double ttft_seconds = 0;
  double predicted_ttft_seconds = 0;
  Strategy strategy = Strategy::kSingle;
  std::vector<int32_t> cuts;  // inner cuts
  std::vector<RankReport> ranks;
  std::string first_logits_sha256;  // hex, of the float32 logits of the first token
  std::string transport;  // that carried its pages: "tcp"; "tcp, ucx" if its hops were unlike
  std::string compute;  // Engine::compute_name()
  uint32_t attempts = 1;
  int32_t cached_tokens = 0;  // of the prompt, whose K/V a worker had kept
  int32_t cache_write_tokens = 0;  // that are kept now, for later prompts
  RequestMarks marks;
  std::string decode_worker;  // its name
};

struct PrefillProgress {  // at most a few a second
  double fraction = 0;  // 0 to 1 over all ranks, from what was cached on
  int32_t cached_tokens = 0;
  std::vector<double> ranks;
};
struct PromptEvent {  // before the first token, for who asks for prompt_logprobs
  std::vector<SampledToken> tokens;  // the prompt's from its second on, by the model alone (model/sampler.h, score())
};
struct TokensEvent {
  int32_t first_index = 0;  // of tokens[0] among the generated ones; no index comes twice or is left out
  std::vector<SampledToken> tokens;
};
struct FinishedEvent {
  FinishReason reason = FinishReason::kStop;
  std::optional<SampledToken> stop_token;  // that ended it, if one did: no part of the answer
  TtftReport report;
  int32_t generated = 0;
  double total_seconds = 0;
};
using StreamEvent = std::variant<PrefillProgress, PromptEvent, TokensEvent, FinishedEvent>;

// The answer to one request, in order. After FinishedEvent or an error nothing follows.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  // kDeadlineExceeded only says that nothing came by `deadline`, unless ended(): then it is the request's own deadline.
  // Any other error ended the request.
  virtual Task<StreamEvent> next(Deadline deadline) = 0;
  // FinishedEvent or an error has come: next() does not wait any more.
  virtual bool ended() const { return false; }
  // The reader has all it wants, at the tokens it has got: nothing more is made, and FinishedEvent (kStop) follows as soon
  // as the ranks have reported. Tokens that were under way may still come before it. Before the first token: cancel().
  virtual void finish() = 0;
  virtual void cancel() = 0;
  // The first chunk with a token has been written to the client: closes the stage `respond` and TTFT itself.
  virtual void first_chunk_written() = 0;
};

struct WorkerView {
  WorkerId id = 0;
  std::string name, role, device, transport, state;  // state: "ready", "waiting", "suspect", "stuck", "draining"
  int64_t pages_total = 0, pages_free = 0;
  int32_t running = 0;
  double tokens_per_second = 0;  // from the cost model, of an empty context
  double link_bytes_per_second = 0;  // of K/V into it, from the wire times that its senders reported; 0: none yet
  double silent_seconds = 0;  // since its last message
};
struct ClusterView {
  uint64_t epoch = 0;
  std::string fingerprint, compute;
  int32_t context_len = 0;
  std::string disagreement;  // why workers of both roles are here and none is ready; empty: they agree
  int64_t kv_tokens = 0;  // that the largest decode worker's K/V memory holds
  std::vector<WorkerView> workers;
  int32_t running = 0, waiting = 0;
  int64_t queued_prompt_tokens = 0;
  bool draining = false;
  bool ready() const;  // at least one prefill and one decode worker
};

class InferenceService {
 public:
  virtual ~InferenceService() = default;
  // kContextOverflow, kInvalidArgument (cuts), kOverloaded (with Error.retry_after_seconds), kUnavailable.
  virtual Result<std::shared_ptr<TokenStream>> submit(InferenceRequest request) = 0;
  virtual ClusterView cluster() const = 0;
};

}  // namespace runahead
