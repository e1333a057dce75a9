#include "actors/jobs/job_json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json_text.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr std::array kReasons = {"stop", "length", "abort"};  // in the order of FinishReason

std::string strategy_text(Strategy strategy) { return std::string(name(strategy)); }

Strategy strategy_of(const std::string& text) {
  if (text == name(Strategy::kByHand)) return Strategy::kByHand;
  return parse_strategy(text).value_or(Strategy::kBalanced);
}

json sampling_json(const SamplingParams& s) {
  return {{"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"presence_penalty", s.presence_penalty},
          {"frequency_penalty", s.frequency_penalty},
          {"repetition_penalty", s.repetition_penalty},
          {"logit_bias", s.logit_bias},
          {"banned", s.banned},
          {"banned_before", s.banned_before},
          {"seed", s.seed},
          {"top_logprobs", s.top_logprobs}};
}

SamplingParams sampling_of(const json& from) {
  return {.temperature = from.at("temperature"),
          .top_k = from.at("top_k"),
          .top_p = from.at("top_p"),
          .min_p = from.at("min_p"),
          .presence_penalty = from.at("presence_penalty"),
          .frequency_penalty = from.at("frequency_penalty"),
          .repetition_penalty = from.at("repetition_penalty"),
          .logit_bias = from.at("logit_bias").get<std::vector<std::pair<TokenId, float>>>(),
          .banned = from.value("banned", std::vector<TokenId>{}),  // rows of older versions have none
          .banned_before = from.value("banned_before", 0),
          .seed = from.at("seed"),
          .top_logprobs = from.at("top_logprobs")};
}

json tokens_json(const std::vector<SampledToken>& tokens) {
  json list = json::array();
  for (const SampledToken& token : tokens) {
    json entry = {token.token, token.logprob};
    for (const TokenLogprob& top : token.top) entry.push_back({top.token, top.logprob});
    list.push_back(std::move(entry));
  }
  return list;
}

// JSON has no infinities: they are written as null.
float logprob_of(const json& from) {
  return from.is_null() ? -std::numeric_limits<float>::infinity() : from.get<float>();
}

std::vector<SampledToken> tokens_of(const json& from) {
  std::vector<SampledToken> tokens;
  for (const json& entry : from) {
    SampledToken& token = tokens.emplace_back(SampledToken{.token = entry.at(0), .logprob = logprob_of(entry.at(1))});
    for (size_t i = 2; i < entry.size(); ++i)
      token.top.push_back({.token = entry[i].at(0), .logprob = logprob_of(entry[i].at(1))});
  }
  return tokens;
}

json report_json(const TtftReport& r) {
  json ranks = json::array();
  for (const RankReport& rank : r.ranks)
    ranks.push_back({{"rank", rank.rank},
                     {"worker", rank.worker},
                     {"device", rank.device},
                     {"begin", rank.chunk.begin},
                     {"end", rank.chunk.end},
                     {"compute_seconds", rank.compute_seconds},
                     {"kv_wait_seconds", rank.kv_wait_seconds},
                     {"kv_sent_bytes", rank.kv_sent_bytes}});
  json stages;
  for (const TtftStage stage : kTtftStages) stages[name(stage)] = r.stages[stage];
  return {{"stages", stages},
          {"ttft_seconds", r.ttft_seconds},
          {"predicted_ttft_seconds", r.predicted_ttft_seconds},
          {"strategy", strategy_text(r.strategy)},
          {"cuts", r.cuts},
          {"ranks", std::move(ranks)},
          {"first_logits_sha256", r.first_logits_sha256},
          {"transport", r.transport},
          {"compute", r.compute},
          {"attempts", r.attempts}};
}

TtftReport report_of(const json& from) {
  TtftReport report;
  for (const TtftStage stage : kTtftStages) report.stages[stage] = from.at("stages").at(name(stage));
  report.ttft_seconds = from.at("ttft_seconds");
  report.predicted_ttft_seconds = from.at("predicted_ttft_seconds");
  report.strategy = strategy_of(from.at("strategy"));
  report.cuts = from.at("cuts").get<std::vector<int32_t>>();
  for (const json& rank : from.at("ranks"))
    report.ranks.push_back({.rank = rank.at("rank"),
                            .worker = rank.at("worker"),
                            .device = rank.at("device"),
                            .chunk = {rank.at("begin"), rank.at("end")},
                            .compute_seconds = rank.at("compute_seconds"),
                            .kv_wait_seconds = rank.at("kv_wait_seconds"),
                            .kv_sent_bytes = rank.at("kv_sent_bytes")});
  report.first_logits_sha256 = from.at("first_logits_sha256");
  report.transport = from.at("transport");
  report.compute = from.at("compute");
  report.attempts = from.at("attempts");
  return report;
}

InferenceRequest stored_request_of(const json& from) {
  return {.external_id = from.at("external_id"),
          .prompt = from.at("prompt").get<std::vector<TokenId>>(),
          .max_new_tokens = from.at("max_new_tokens"),
          .sampling = sampling_of(from.at("sampling")),
          .stop_tokens = from.at("stop_tokens").get<std::vector<TokenId>>(),
          .strategy = strategy_of(from.at("strategy")),
          .cuts = from.at("cuts").get<std::vector<int32_t>>(),
          .workers_max = from.at("workers_max"),
          .deadline = Duration(from.at("deadline_ns").get<int64_t>())};
}

StoredResult stored_result_of(const json& from) {
  StoredResult result{.tokens = tokens_of(from.at("tokens"))};
  if (from.contains("reason")) {
    const auto reason = std::ranges::find(kReasons, from.at("reason").get<std::string>());
    result.finished =
        FinishedEvent{.reason = static_cast<FinishReason>(std::min<int64_t>(reason - kReasons.begin(), 2)),
                      .report = report_of(from.at("report")),
                      .generated = static_cast<int32_t>(result.tokens.size()),
                      .total_seconds = from.at("total_seconds")};
  }
  return result;
}

// nlohmann-json throws on a type that is not expected; here is where that ends.
template <class T>
Result<T> parse(const std::string& text, T (*read)(const json&)) {
  try {
    return read(json::parse(text));
  } catch (const json::exception& error) {
    return fail(ErrorCode::kCorrupt, std::string("a stored job cannot be read: ") + error.what());
  }
}

}  // namespace

std::string to_json(const InferenceRequest& r) {
  return to_text({{"external_id", r.external_id},
                  {"prompt", r.prompt},
                  {"max_new_tokens", r.max_new_tokens},
                  {"sampling", sampling_json(r.sampling)},
                  {"stop_tokens", r.stop_tokens},
                  {"strategy", strategy_text(r.strategy)},
                  {"cuts", r.cuts},
                  {"workers_max", r.workers_max},
                  {"deadline_ns", r.deadline.count()}});
}

std::string to_json(const StoredResult& stored) {
  json result = {{"tokens", tokens_json(stored.tokens)}};
  if (stored.finished) {
    result["reason"] = kReasons[static_cast<size_t>(stored.finished->reason)];
    result["report"] = report_json(stored.finished->report);
    result["total_seconds"] = stored.finished->total_seconds;
  }
  return to_text(result);
}

Result<InferenceRequest> request_from_json(const std::string& text) { return parse(text, stored_request_of); }
Result<StoredResult> result_from_json(const std::string& text) { return parse(text, stored_result_of); }

}  // namespace runahead
