#include "actors/coordinator/peer_checks.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "base/sha256.h"
#include "base/utf8.h"

namespace runahead {
namespace {

constexpr float kLogprobSlack = 1e-3f;  // rounding of a probability of one

std::unexpected<Error> odd(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "it says something impossible: " + what);
}

// Finite, too: NaN is within nothing.
template <class T>
bool within(T value, T least, T most) {
  return value >= least && value <= most;
}

// One line: UTF-8 without control characters.
bool is_line(const std::string& text, size_t bytes_max) {
  return text.size() <= bytes_max && utf8_valid_prefix(text) == text.size() &&
         std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

bool is_seconds(double value) { return within(value, 0.0, limits::kReportedSecondsMax); }

Result<void> check_timing(const proto::RankTiming& timing) {
  for (const double value :
       {timing.compute_seconds(), timing.kv_wait_seconds(), timing.lane_wait_seconds(), timing.sample_seconds(),
        timing.total_seconds(), timing.kv_send_seconds(), timing.kv_wire_seconds(), timing.kv_rtt_seconds()})
    if (!is_seconds(value)) return odd("a time of " + std::to_string(value) + " s");
  if (timing.kv_sent_bytes() > limits::kReportedBytesMax || timing.kv_received_bytes() > limits::kReportedBytesMax)
    return odd("a number of bytes");
  return {};
}

Result<void> check_token(const proto::Token& token, const ModelShape& shape) {
  const auto known = [&](int32_t id) { return id >= 0 && id < shape.vocab_size; };
  const auto is_logprob = [](float value) { return std::isfinite(value) && value <= kLogprobSlack; };
  if (!known(token.id())) return odd("token " + std::to_string(token.id()) + ", outside the vocabulary");
  if (!is_logprob(token.logprob())) return odd("a log-probability");
  if (token.top_size() > limits::kTopLogprobsMax) return odd("a number of alternatives");
  for (const proto::Logprob& entry : token.top())
    if (!known(entry.token()) || !is_logprob(entry.logprob())) return odd("an alternative to a token");
  return {};
}

Result<void> check_first_token(const proto::FirstToken& first, const ModelShape& shape) {
  TRY(check_token(first.token(), shape));
  const size_t digest = first.logits_sha256().size();
  if (digest != 0 && digest != kSha256Bytes) return odd("a digest of " + std::to_string(digest) + " bytes");
  return check_timing(first.timing());
}

Result<void> check_batch(const proto::TokenBatch& batch, const ModelShape& shape) {
  const auto context = static_cast<uint32_t>(shape.context_len);
  if (batch.first_index() >= context || static_cast<uint32_t>(batch.tokens_size()) > context - batch.first_index())
    return odd("more tokens than the context has");
  for (const proto::Token& token : batch.tokens()) TRY(check_token(token, shape));
  return {};
}

Result<void> check_rank(uint32_t rank) {
  if (rank >= static_cast<uint32_t>(limits::kWorkersMax)) return odd("rank " + std::to_string(rank));
  return {};
}

Result<void> check_scores(const proto::PromptScores& scores, const ModelShape& shape) {
  TRY(check_rank(scores.rank()));
  if (scores.tokens_size() > limits::kScoredRowsMax) return odd("a number of log-probabilities");
  if (!within(scores.begin(), 1, shape.context_len) || scores.tokens_size() > shape.context_len - scores.begin())
    return odd("log-probabilities behind the context");
  for (const proto::Token& token : scores.tokens()) TRY(check_token(token, shape));
  return {};
}

Result<void> check_progress(const proto::RankProgress& progress, const ModelShape& shape) {
  TRY(check_rank(progress.rank()));
  if (progress.layers_total() != static_cast<uint32_t>(shape.num_layers) ||
      progress.layers_done() > progress.layers_total())
    return odd("layer " + std::to_string(progress.layers_done()) + " of " + std::to_string(progress.layers_total()));
  return {};
}

Result<void> check_heartbeat(const proto::Heartbeat& heartbeat) {
  for (const int64_t pages : {heartbeat.pages_free(), heartbeat.pages_leased(), heartbeat.pages_quarantined()})
    if (!within<int64_t>(pages, 0, limits::kPeerPagesMax)) return odd(std::to_string(pages) + " pages");
  return {};
}

Result<void> check_kept(int32_t pages, const ModelShape& shape) {
  if (!within(pages, 0, pages_for(shape.context_len))) return odd("a prefix of " + std::to_string(pages) + " pages");
  return {};
}

Result<void> check_decode_done(const proto::DecodeDone& done, const ModelShape& shape) {
  if (done.tokens() > static_cast<uint32_t>(shape.context_len)) return odd("more tokens than the context has");
  if (!is_seconds(done.handoff_seconds())) return odd("a time of " + std::to_string(done.handoff_seconds()) + " s");
  if (!is_seconds(done.kv_given_seconds())) return odd("a time of " + std::to_string(done.kv_given_seconds()) + " s");
  if (done.kv_received_bytes() > limits::kReportedBytesMax || done.kv_given_bytes() > limits::kReportedBytesMax)
    return odd("a number of bytes");
  return check_kept(done.kept_pages(), shape);
}

}  // namespace

Result<void> check_certified(const proto::Hello& hello, std::string_view certified_role) {
  const std::string_view claimed = hello.role() == proto::Hello::PREFILL ? "prefill" : "decode";
  if (certified_role.empty() || certified_role == claimed) return {};
  return fail(ErrorCode::kIncompatible, "the worker's certificate is of a " + std::string(certified_role) +
                                            " worker, and it joins as one for " + std::string(claimed));
}

Result<void> check_hello(const proto::Hello& hello) {
  if (hello.incarnation() == 0) return odd("it has no incarnation");
  if (hello.role() != proto::Hello::PREFILL && hello.role() != proto::Hello::DECODE) return odd("an unknown role");
  if (!is_line(hello.name(), limits::kPeerTextBytesMax) || !is_line(hello.device(), limits::kPeerTextBytesMax) ||
      !is_line(hello.compute(), limits::kPeerTextBytesMax) ||
      !is_line(hello.fingerprint(), limits::kPeerTextBytesMax) ||
      !is_line(hello.kv_transport(), limits::kPeerTextBytesMax))
    return odd("a name of more than " + std::to_string(limits::kPeerTextBytesMax) + " bytes, or not one line of text");
  if (hello.kv_address().empty() || !is_line(hello.kv_address(), limits::kPeerAddressBytesMax))
    return odd("its K/V address");
  if (!within<int64_t>(hello.pages_total(), 1, limits::kPeerPagesMax))
    return odd(std::to_string(hello.pages_total()) + " pages");
  if (!within<uint64_t>(hello.page_bytes(), 1, limits::kPageBytesMax))
    return odd("pages of " + std::to_string(hello.page_bytes()) + " bytes");
  if (!within<uint32_t>(hello.attempts_max(), 1, limits::kPeerAttemptsMax))
    return odd(std::to_string(hello.attempts_max()) + " attempts at once");
  const double per_token = hello.seconds_per_token(), per_pair = hello.seconds_per_pair();
  if (per_token == 0 && per_pair == 0) return {};  // not measured
  if (!within(per_token, limits::kSecondsPerTokenMin, limits::kSecondsPerTokenMax) ||
      !(per_pair == 0 || within(per_pair, limits::kSecondsPerPairMin, limits::kSecondsPerPairMax)))
    return odd("a speed of " + std::to_string(per_token) + " s a token and " + std::to_string(per_pair) + " s a pair");
  return {};
}

Result<void> check_report(const proto::Envelope& message, const ModelShape& shape) {
  switch (message.body_case()) {
    case proto::Envelope::kHeartbeat:
      return check_heartbeat(message.heartbeat());
    case proto::Envelope::kRankProgress:
      return check_progress(message.rank_progress(), shape);
    case proto::Envelope::kFirstToken:
      return check_first_token(message.first_token(), shape);
    case proto::Envelope::kRankDone:
      TRY(check_rank(message.rank_done().rank()));
      TRY(check_kept(message.rank_done().kept_pages(), shape));
      return check_timing(message.rank_done().timing());
    case proto::Envelope::kPromptScores:
      return check_scores(message.prompt_scores(), shape);
    case proto::Envelope::kPromptKept:
      return check_kept(message.prompt_kept().kept_pages(), shape);
    case proto::Envelope::kAttemptEnded:
      return check_kept(message.attempt_ended().kept_pages(), shape);
    case proto::Envelope::kTokenBatch:
      return check_batch(message.token_batch(), shape);
    case proto::Envelope::kDecodeDone:
      return check_decode_done(message.decode_done(), shape);
    default:
      return {};  // nothing in it is counted with
  }
}

}  // namespace runahead
