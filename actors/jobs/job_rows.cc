#include "actors/jobs/job_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "actors/sampling_codec.h"
#include "base/limits.h"
#include "model/sampler.h"
#include "proto/job.pb.h"

namespace runahead {
namespace {

constexpr std::array kStrategies = {std::pair{Strategy::kSingle, proto::STRATEGY_SINGLE},
                                    std::pair{Strategy::kEven, proto::STRATEGY_EVEN},
                                    std::pair{Strategy::kBalanced, proto::STRATEGY_BALANCED},
                                    std::pair{Strategy::kByHand, proto::STRATEGY_BY_HAND},
                                    std::pair{Strategy::kSearched, proto::STRATEGY_SEARCHED},
                                    std::pair{Strategy::kPredicted, proto::STRATEGY_PREDICTED}};
constexpr std::array kEnds = {std::pair{FinishReason::kStop, proto::StoredResult::END_STOP},
                              std::pair{FinishReason::kLength, proto::StoredResult::END_LENGTH},
                              std::pair{FinishReason::kAbort, proto::StoredResult::END_ABORT}};

std::unexpected<Error> corrupt(const std::string& what) {
  return fail(ErrorCode::kCorrupt, "a stored job cannot be read: " + what);
}

template <class Ours, class Stored, size_t kSize>
Stored stored_as(const std::array<std::pair<Ours, Stored>, kSize>& table, Ours value) {
  return std::ranges::find(table, value, &std::pair<Ours, Stored>::first)->second;
}

template <class Ours, class Stored, size_t kSize>
std::optional<Ours> read_as(const std::array<std::pair<Ours, Stored>, kSize>& table, Stored value) {
  const auto found = std::ranges::find(table, value, &std::pair<Ours, Stored>::second);
  return found != table.end() ? std::optional(found->first) : std::nullopt;
}

constexpr size_t kTraceIdDigits = 32;

bool within(int64_t value, int64_t min, int64_t max) { return value >= min && value <= max; }

template <class Repeated>
Result<std::vector<TokenId>> parse_tokens(const Repeated& from, uint64_t size_max) {
  const auto is_token = [](TokenId token) { return within(token, 0, limits::kVocabMax - 1); };
  if (static_cast<uint64_t>(from.size()) > size_max || !std::ranges::all_of(from, is_token)) return corrupt("a token");
  return std::vector<TokenId>(from.begin(), from.end());
}

template <class Repeated>
Result<std::vector<int32_t>> parse_cuts(const Repeated& from) {
  const auto is_cut = [](int32_t cut) { return cut > 0; };
  if (from.size() >= limits::kWorkersMax || !std::ranges::all_of(from, is_cut)) return corrupt("a cut");
  return std::vector<int32_t>(from.begin(), from.end());
}

Result<SamplingParams> parse_sampling(const proto::Sampling& from) {
  SamplingParams sampling = decode(from);
  const Result<void> valid = validate(sampling, static_cast<int32_t>(limits::kVocabMax));
  if (!valid) return corrupt(valid.error().message);
  if (sampling.logit_bias.size() > limits::kLogitBiasMax) return corrupt("logit_bias");
  return sampling;
}

Result<SampledToken> parse_token(const proto::Token& from) {
  const auto is_good = [](int32_t id, float logprob) {
    return within(id, 0, limits::kVocabMax - 1) && std::isfinite(logprob);
  };
  SampledToken token = decode(from);
  const auto is_good_entry = [&](const TokenLogprob& entry) { return is_good(entry.token, entry.logprob); };
  if (!is_good(token.token, token.logprob) || token.top.size() > limits::kTopLogprobsMax ||
      !std::ranges::all_of(token.top, is_good_entry))
    return corrupt("a token");
  return token;
}

template <class Values>
bool are_finite(const Values& values) {
  return std::ranges::all_of(values, [](double value) { return std::isfinite(value); });
}

void encode(const RankReport& from, proto::StoredReport::Rank& to) {
  to.set_rank(from.rank);
  to.set_worker(from.worker);
  to.set_device(from.device);
  to.set_begin(from.chunk.begin);
  to.set_end(from.chunk.end);
  to.set_compute_seconds(from.compute_seconds);
  to.set_kv_wait_seconds(from.kv_wait_seconds);
  to.set_kv_sent_bytes(from.kv_sent_bytes);
  to.set_kv_wire_seconds(from.kv_wire_seconds);
  to.set_lane_wait_seconds(from.lane_wait_seconds);
  to.set_sample_seconds(from.sample_seconds);
  to.set_total_seconds(from.total_seconds);
  to.set_kv_send_seconds(from.kv_send_seconds);
  to.set_kv_received_bytes(from.kv_received_bytes);
  to.set_worked_at_seconds(from.worked_at_seconds);
  to.set_sent_at_seconds(from.sent_at_seconds);
}

Result<RankReport> parse_rank(const proto::StoredReport::Rank& from) {
  if (!within(from.rank(), 0, limits::kWorkersMax - 1) || !within(from.begin(), 0, from.end()) ||
      !within(from.end(), 0, limits::kModelContextMax) ||
      !are_finite(std::array{from.compute_seconds(), from.kv_wait_seconds(), from.kv_wire_seconds(),
                             from.lane_wait_seconds(), from.sample_seconds(), from.total_seconds(),
                             from.kv_send_seconds(), from.worked_at_seconds(), from.sent_at_seconds()}))
    return corrupt("the report of a rank");
  return RankReport{.rank = from.rank(),
                    .worker = from.worker(),
                    .device = from.device(),
                    .chunk = {from.begin(), from.end()},
                    .compute_seconds = from.compute_seconds(),
                    .kv_wait_seconds = from.kv_wait_seconds(),
                    .kv_sent_bytes = from.kv_sent_bytes(),
                    .kv_wire_seconds = from.kv_wire_seconds(),
                    .lane_wait_seconds = from.lane_wait_seconds(),
                    .sample_seconds = from.sample_seconds(),
                    .total_seconds = from.total_seconds(),
                    .kv_send_seconds = from.kv_send_seconds(),
                    .kv_received_bytes = from.kv_received_bytes(),
                    .worked_at_seconds = from.worked_at_seconds(),
                    .sent_at_seconds = from.sent_at_seconds()};
}

void encode(const RequestMarks& from, proto::StoredReport::Marks& to) {
  to.set_submitted(from.submitted);
  to.set_plan_started(from.plan_started);
  to.set_dispatched(from.dispatched);
  to.set_first_token(from.first_token);
  to.set_written(from.written);
  to.set_second_token(from.second_token);
}

Result<RequestMarks> parse_marks(const proto::StoredReport::Marks& from) {
  if (!are_finite(std::array{from.submitted(), from.plan_started(), from.dispatched(), from.first_token(),
                             from.written(), from.second_token()}))
    return corrupt("the marks of its report");
  return RequestMarks{.submitted = from.submitted(),
                      .plan_started = from.plan_started(),
                      .dispatched = from.dispatched(),
                      .first_token = from.first_token(),
                      .written = from.written(),
                      .second_token = from.second_token()};
}

void encode(const TtftReport& from, proto::StoredReport& to) {
  for (const TtftStage stage : kTtftStages) to.add_stage_seconds(from.stages[stage]);
  to.set_ttft_seconds(from.ttft_seconds);
  to.set_predicted_ttft_seconds(from.predicted_ttft_seconds);
  to.set_strategy(stored_as(kStrategies, from.strategy));
  to.mutable_cuts()->Add(from.cuts.begin(), from.cuts.end());
  for (const RankReport& rank : from.ranks) encode(rank, *to.add_ranks());
  to.set_first_logits_sha256(from.first_logits_sha256);
  to.set_transport(from.transport);
  to.set_compute(from.compute);
  to.set_attempts(from.attempts);
  to.set_cached_tokens(from.cached_tokens);
  to.set_cache_write_tokens(from.cache_write_tokens);
  encode(from.marks, *to.mutable_marks());
  to.set_decode_worker(from.decode_worker);
}

Result<TtftReport> parse_report(const proto::StoredReport& from) {
  const auto strategy = read_as(kStrategies, from.strategy());
  const std::span<const double> stages(from.stage_seconds().data(), static_cast<size_t>(from.stage_seconds_size()));
  if (!strategy || stages.size() != kTtftStages.size() || !are_finite(stages) ||
      !are_finite(std::array{from.ttft_seconds(), from.predicted_ttft_seconds()}) ||
      from.ranks_size() > limits::kWorkersMax || from.cached_tokens() < 0 || from.cache_write_tokens() < 0)
    return corrupt("its report");
  TtftReport report{.ttft_seconds = from.ttft_seconds(),
                    .predicted_ttft_seconds = from.predicted_ttft_seconds(),
                    .strategy = *strategy,
                    .first_logits_sha256 = from.first_logits_sha256(),
                    .transport = from.transport(),
                    .compute = from.compute(),
                    .attempts = from.attempts(),
                    .cached_tokens = from.cached_tokens(),
                    .cache_write_tokens = from.cache_write_tokens(),
                    .marks = {},
                    .decode_worker = from.decode_worker()};
  report.marks = TRY(parse_marks(from.marks()));
  for (const TtftStage stage : kTtftStages) report.stages[stage] = stages[static_cast<size_t>(stage)];
  report.cuts = TRY(parse_cuts(from.cuts()));
  for (const auto& rank : from.ranks()) report.ranks.push_back(TRY(parse_rank(rank)));
  return report;
}

}  // namespace

std::string serialize(const InferenceRequest& request) {
  proto::StoredRequest stored;
  stored.set_external_id(request.external_id);
  stored.mutable_prompt()->Add(request.prompt.begin(), request.prompt.end());
  stored.set_max_new_tokens(request.max_new_tokens);
  encode(request.sampling, *stored.mutable_sampling());
  stored.mutable_stop_tokens()->Add(request.stop_tokens.begin(), request.stop_tokens.end());
  stored.set_strategy(stored_as(kStrategies, request.strategy));
  stored.mutable_cuts()->Add(request.cuts.begin(), request.cuts.end());
  stored.set_workers_max(request.workers_max);
  stored.set_deadline_ns(request.deadline.count());
  stored.set_cache_salt(request.cache_salt);
  stored.set_trace_id(request.trace_id);
  return stored.SerializeAsString();
}

Result<InferenceRequest> parse_stored_request(const std::string& bytes) {
  proto::StoredRequest from;
  if (!from.ParseFromString(bytes)) return corrupt("it is no request");
  const auto strategy = read_as(kStrategies, from.strategy());
  if (!strategy || from.prompt().empty() || from.max_new_tokens() < 1 || from.deadline_ns() < 0 ||
      !within(from.workers_max(), 0, limits::kWorkersMax) || from.trace_id().size() > kTraceIdDigits)
    return corrupt("its request is out of bounds");
  InferenceRequest request{.external_id = from.external_id(),
                           .trace_id = from.trace_id(),
                           .max_new_tokens = from.max_new_tokens(),
                           .strategy = *strategy,
                           .workers_max = from.workers_max(),
                           .cache_salt = from.cache_salt(),
                           .deadline = Duration(from.deadline_ns())};
  request.prompt = TRY(parse_tokens(from.prompt(), limits::kModelContextMax));
  request.sampling = TRY(parse_sampling(from.sampling()));
  request.stop_tokens = TRY(parse_tokens(from.stop_tokens(), limits::kBannedTokensMax));
  request.cuts = TRY(parse_cuts(from.cuts()));
  return request;
}

std::string serialize(const StoredResult& result) {
  proto::StoredResult stored;
  stored.set_end(proto::StoredResult::END_UNFINISHED);
  for (const SampledToken& token : result.tokens) encode(token, *stored.add_tokens());
  if (result.finished) {
    stored.set_end(stored_as(kEnds, result.finished->reason));
    encode(result.finished->report, *stored.mutable_report());
    stored.set_total_seconds(result.finished->total_seconds);
  }
  return stored.SerializeAsString();
}

Result<StoredResult> parse_stored_result(const std::string& bytes) {
  proto::StoredResult from;
  if (!from.ParseFromString(bytes)) return corrupt("it is no result");
  const auto reason = read_as(kEnds, from.end());
  if (!reason && from.end() != proto::StoredResult::END_UNFINISHED) return corrupt("how it ended");
  if (static_cast<uint64_t>(from.tokens_size()) > limits::kModelContextMax || !std::isfinite(from.total_seconds()))
    return corrupt("its result is out of bounds");
  StoredResult result;
  result.tokens.reserve(static_cast<size_t>(from.tokens_size()));
  for (const proto::Token& token : from.tokens()) result.tokens.push_back(TRY(parse_token(token)));
  if (!reason) return result;
  FinishedEvent& finished = result.finished.emplace();
  finished.reason = *reason;
  finished.report = TRY(parse_report(from.report()));
  finished.generated = static_cast<int32_t>(result.tokens.size());
  finished.total_seconds = from.total_seconds();
  return result;
}

}  // namespace runahead
