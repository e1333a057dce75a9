#include "actors/messages.h"

#include <algorithm>
#include <span>

#include "base/limits.h"
#include "model/sampler.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

std::unexpected<Error> invalid(std::string what) {
  return fail(ErrorCode::kInvalidArgument, "a work order is not valid: " + what);
}

Result<KvHop> parse_hop(const proto::KvPeer& peer) {
  if (peer.kv_address().empty()) return invalid("a K/V hop has no address");
  if (peer.kv_address().size() > limits::kPeerAddressBytesMax) return invalid("the address of a K/V hop");
  const std::string& token = peer.stream_token();
  if (token.size() != sizeof(StreamToken)) return invalid("the token of a K/V hop has not 16 bytes");
  return KvHop{peer.kv_address(), load_token(std::as_bytes(std::span(token)).data()), peer.worker()};
}

template <class Repeated>
Result<std::vector<TokenId>> parse_tokens(const Repeated& from, const ModelShape& shape) {
  std::vector<TokenId> tokens(from.begin(), from.end());
  const auto outside = [&](TokenId token) { return token < 0 || token >= shape.vocab_size; };
  if (std::ranges::any_of(tokens, outside)) return invalid("a token is outside the vocabulary");
  return tokens;
}

Result<Time> parse_deadline(uint32_t deadline_ms, Time now) {
  const auto left = std::chrono::milliseconds(deadline_ms);
  if (left <= Duration::zero()) return invalid("it has no deadline");
  return now + std::min<Duration>(left, limits::kDeadlineMax);
}

template <class From>
PrefixOrder decode_prefix(const From& from) {
  return {.from = from.from_prefix(),
          .pages = from.kept_pages(),
          .keep = from.keep_prefix(),
          .drop = {from.drop_prefixes().begin(), from.drop_prefixes().end()}};
}

Result<void> check_prefix(const PrefixOrder& prefix, int32_t pages_max) {
  if (prefix.pages < 0 || prefix.pages > pages_max || (prefix.from == 0) != (prefix.pages == 0))
    return invalid("a kept prefix of no pages, or of more than the prompt has before the chunk");
  if (prefix.drop.size() > 2 * limits::kKeptPrefixesMax) return invalid("the number of dropped prefixes");
  return {};
}

Result<void> check_shape(const ChainStep& step, const ModelShape& shape) {
  if (step.num_ranks < 1 || step.num_ranks > limits::kWorkersMax) return invalid("the number of ranks");
  if (step.rank < 0 || step.rank >= step.num_ranks) return invalid("the rank");
  if (step.chunk.begin < 0 || step.chunk.empty() || step.chunk.end > shape.context_len) return invalid("the chunk");
  if (step.rank > 0 && (step.chunk.begin == 0 || step.prefix.from != 0))
    return invalid("only rank 0 begins the context or continues a kept prefix");
  TRY(check_prefix(step.prefix, step.prefix_pages()));
  if (step.upstream.address.empty() != (step.prefix.pages == step.prefix_pages()))
    return invalid("pages before the chunk are kept, or come from somewhere");
  if (step.prefix.keep != 0 && !step.is_last_rank()) return invalid("a rank that has not all pages cannot keep them");
  if (step.downstream_has != 0 && !step.is_last_rank()) return invalid("a rank needs every page before its own");
  if (step.downstream_has < 0 || step.downstream_has >= step.chunk.end_page())
    return invalid("the pages that the decode worker has");
  if (step.chunk.begin % kPageTokens != 0) return invalid("the chunk does not begin with a page");
  if (!step.is_last_rank() && step.chunk.end % kPageTokens != 0) return invalid("the chunk does not end with a page");
  if (std::ssize(step.tokens) != step.chunk.size()) return invalid("the chunk and its tokens differ in length");
  if (step.prompt_len_original < 1 || step.prompt_len_original > shape.context_len)
    return invalid("the length of the prompt");
  if (step.is_last_rank() && depends_on_tokens(step.sampling) && std::ssize(step.prompt) != step.chunk.end)
    return invalid("penalties and grammars need the whole prompt");
  if (step.prompt_logprobs && (*step.prompt_logprobs < 0 || *step.prompt_logprobs > limits::kTopLogprobsMax))
    return invalid("the number of log-probabilities");
  if (step.next_token < 0 || step.next_token >= shape.vocab_size) return invalid("a token is outside the vocabulary");
  return {};
}

// In the order of kMessageCases.
constexpr std::string_view kMessageNames[] = {
    "hello",       "welcome",       "refused",        "heartbeat",   "drain",         "run_chain_step",
    "run_decode",  "rank_progress", "first_token",    "rank_done",   "prompt_scores", "prompt_kept",
    "token_batch", "decode_done",   "attempt_failed", "end_attempt", "attempt_ended"};
using Body = proto::Envelope;
constexpr proto::Envelope::BodyCase kMessageCases[] = {
    Body::kHello,        Body::kWelcome,     Body::kRefused,      Body::kHeartbeat,  Body::kDrain,
    Body::kRunChainStep, Body::kRunDecode,   Body::kRankProgress, Body::kFirstToken, Body::kRankDone,
    Body::kPromptScores, Body::kPromptKept,  Body::kTokenBatch,   Body::kDecodeDone, Body::kAttemptFailed,
    Body::kEndAttempt,   Body::kAttemptEnded};
static_assert(std::size(kMessageNames) == std::size(kMessageCases));

}  // namespace

std::span<const std::string_view> message_names() { return kMessageNames; }

std::string_view message_name(const std::string& bytes) {
  const Result<proto::Envelope> message = parse_envelope(bytes);
  if (!message) return {};
  const auto* found = std::ranges::find(kMessageCases, message->body_case());
  return found == std::end(kMessageCases) ? std::string_view() : kMessageNames[found - std::begin(kMessageCases)];
}

proto::Envelope envelope(AttemptId attempt) {
  proto::Envelope message;
  message.set_epoch(attempt.epoch);
  message.set_request(attempt.request);
  message.set_attempt(attempt.attempt);
  return message;
}

AttemptId attempt_of(const proto::Envelope& message) { return {message.epoch(), message.request(), message.attempt()}; }

std::string serialize(const proto::Envelope& message) { return message.SerializeAsString(); }

Result<proto::Envelope> parse_envelope(const std::string& bytes) {
  proto::Envelope message;
  if (bytes.size() > limits::kControlFrameBytesMax || !message.ParseFromString(bytes) ||
      message.body_case() == proto::Envelope::BODY_NOT_SET)
    return fail(ErrorCode::kInvalidArgument, "a control message cannot be read; are both sides of the same version?");
  return message;
}

Result<ChainStep> parse_chain_step(const proto::Envelope& message, const ModelShape& shape, Time now) {
  const proto::RunChainStep& from = message.run_chain_step();
  if (from.num_ranks() > limits::kWorkersMax || from.rank() >= from.num_ranks()) return invalid("the rank");
  ChainStep step{.attempt = attempt_of(message),
                 .rank = static_cast<int32_t>(from.rank()),
                 .num_ranks = static_cast<int32_t>(from.num_ranks()),
                 .chunk = {from.begin(), from.end()},
                 .sampling = decode(from.sampling()),
                 .prompt_len_original = static_cast<int32_t>(std::min<uint32_t>(from.prompt_len_original(), INT32_MAX)),
                 .order = {.due = from.lane_due(), .request = message.request()}};
  step.tokens = TRY(parse_tokens(from.tokens(), shape));
  step.prompt = TRY(parse_tokens(from.prompt(), shape));
  step.deadline = TRY(parse_deadline(from.deadline_ms(), now));
  if (step.rank > 0 || from.has_upstream()) step.upstream = TRY(parse_hop(from.upstream()));
  step.downstream = TRY(parse_hop(from.downstream()));
  if (from.has_scoring()) {
    step.prompt_logprobs = from.scoring().top();
    step.next_token = from.scoring().next_token();
  }
  step.prefix = decode_prefix(from);
  step.downstream_has = from.downstream_has();
  TRY(check_shape(step, shape));
  if (step.is_last_rank()) TRY(validate(step.sampling, shape.vocab_size));
  return step;
}

Result<DecodeOrder> parse_decode_order(const proto::Envelope& message, const ModelShape& shape, Time now) {
  const proto::RunDecode& from = message.run_decode();
  if (from.max_new_tokens() < 1 || from.max_new_tokens() > static_cast<uint32_t>(shape.context_len))
    return invalid("the number of new tokens");
  DecodeOrder order{
      .attempt = attempt_of(message),
      .prompt_len = from.prompt_len(),
      .sampling = decode(from.sampling()),
      .max_new_tokens = static_cast<int32_t>(from.max_new_tokens()),
      .prompt_len_original = static_cast<int32_t>(std::min<uint32_t>(from.prompt_len_original(), INT32_MAX))};
  order.upstream = TRY(parse_hop(from.upstream()));
  order.stop_tokens = TRY(parse_tokens(from.stop_tokens(), shape));
  order.prompt = TRY(parse_tokens(from.prompt(), shape));
  order.deadline = TRY(parse_deadline(from.deadline_ms(), now));
  if (order.prompt_len < 1 || order.prompt_len > shape.context_len - order.max_new_tokens)
    return invalid("prompt and new tokens are longer than the context");
  if (std::ssize(order.prompt) != order.prompt_len) return invalid("the prompt and its length differ");
  if (order.prompt_len_original < 1 || order.prompt_len_original > order.prompt_len)
    return invalid("the length of the original prompt");
  TRY(validate(order.sampling, shape.vocab_size));
  order.prefix = decode_prefix(from);
  order.prefix.keep_prompt = from.keep_prompt();
  TRY(check_prefix(order.prefix, (order.prompt_len - 1) / kPageTokens));
  order.beginning_from = from.beginning_from();
  if (!from.has_beginning()) return order;
  order.beginning = TRY(parse_hop(from.beginning()));
  if (order.beginning_from < 0 || order.beginning_from >= order.prefix.pages)
    return invalid("the pages of the beginning that it gives are none that it keeps");
  return order;
}

bool depends_on_tokens(const SamplingParams& sampling) {
  return !sampling.grammar.empty() || sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

void encode(const Failure& from, proto::Failure& to) {
  to.set_code(static_cast<uint32_t>(from.error.code));
  to.set_message(from.error.message);
  to.set_blamed_worker(from.blamed);
}

Failure decode(const proto::Failure& from) {
  const bool known = from.code() <= static_cast<uint32_t>(ErrorCode::kInternal);
  return {{known ? static_cast<ErrorCode>(from.code()) : ErrorCode::kInternal,
           from.message().substr(0, limits::kPeerReasonBytesMax)},
          from.blamed_worker()};
}

}  // namespace runahead
