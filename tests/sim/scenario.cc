#include "scenario.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "hash_engine.h"
#include "model/grammar/grammars.h"
#include "model/sampler.h"
#include "tests/support/naive_score.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

constexpr NamedMutant kMutants[] = {
    {"none", {}},
    {"skip-attempt-check", {.actors = {.skip_attempt_check = true}}},
    {"ack-before-commit", {.actors = {.ack_before_commit = true}}},
    {"no-lease-sweep", {.actors = {.no_lease_sweep = true}}},
    {"double-token-index", {.actors = {.double_token_index = true}}},
    {"accept-incomplete-manifest", {.actors = {.accept_incomplete_manifest = true}}},
    {"ignore-checksum", {.ignore_checksum = true}},
};

// Token by token from the definition of the hash model and the production sampler: no pages, no chain, no batch.
void find_answer(RequestSpec& spec) {
  const InferenceRequest& request = spec.request;
  std::vector<TokenId> context = request.prompt;
  grammar::Grammars grammars(hash_token_tree);
  grammar::AnswerGrammar place;
  while (static_cast<int32_t>(spec.answer.size()) < request.max_new_tokens) {
    std::vector<float> logits = hash_logits(context);
    const auto position = static_cast<int32_t>(context.size());
    const auto mask = place.mask(grammars, request.sampling.grammar, spec.answer).value();
    const auto token = sample(logits, request.sampling, request.prompt, spec.answer, position, mask).token;
    if (std::ranges::find(request.stop_tokens, token) != request.stop_tokens.end()) {
      spec.finish = FinishReason::kStop;
      return;
    }
    spec.answer.push_back(token);
    context.push_back(token);
  }
  spec.finish = FinishReason::kLength;
}

void find_scores(RequestSpec& spec) {
  const std::span<const TokenId> prompt(spec.request.prompt);
  for (size_t i = 1; i < prompt.size(); ++i)
    spec.scores.push_back(test::naive_score(hash_logits(prompt.first(i)), prompt[i], *spec.request.prompt_logprobs));
}

SamplingParams draw_sampling(Prng& rng) {
  SamplingParams sampling{.temperature = 0};
  if (rng.chance(0.5)) sampling = {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f, .seed = rng.next()};
  if (rng.chance(0.2)) sampling.repetition_penalty = 1.3f;
  return sampling;
}

RequestSpec draw_request(Prng& rng, int32_t number) {
  RequestSpec spec{.number = number, .is_job = rng.chance(0.35)};
  InferenceRequest& request = spec.request;
  request.external_id = "request-" + std::to_string(number);
  const int64_t length = rng.chance(0.2) ? rng.between(1, 70) : rng.between(65, 380);
  while (static_cast<int64_t>(request.prompt.size()) < length)
    request.prompt.push_back(static_cast<TokenId>(rng.below(kHashVocab)));
  request.max_new_tokens = static_cast<int32_t>(rng.chance(0.1)    ? 1
                                                : rng.chance(0.12) ? rng.between(70, 150)
                                                                   : rng.between(2, 14));
  request.sampling = draw_sampling(rng);
  if (rng.chance(0.3))
    request.stop_tokens = {static_cast<TokenId>(rng.below(kHashVocab)), static_cast<TokenId>(rng.below(kHashVocab))};
  if (rng.chance(0.2)) {
    constexpr std::array kGrammars = {R"({"json_object": true})", R"({"json_schema": {"items": {"type": "integer"}}})",
                                      R"({"list": {"text": "tick"}, "between": " "})"};
    request.sampling.grammar = kGrammars[rng.below(kGrammars.size())];
    request.stop_tokens = {kHashEnd};
  }
  request.strategy = rng.chance(0.6) ? Strategy::kEven : rng.chance(0.2) ? Strategy::kSingle : Strategy::kBalanced;
  if (rng.chance(0.3)) spec.read_pause_mean = rng.duration(1ms, 30ms);
  find_answer(spec);
  return spec;
}

// Prompts that begin like an earlier one, or go on behind its answer; pages of both may be kept somewhere.
void draw_beginning(Prng& rng, const std::vector<RequestSpec>& earlier, RequestSpec& spec) {
  if (earlier.empty() || !rng.chance(0.6)) return;
  const auto other = static_cast<size_t>(rng.between(0, std::ssize(earlier) - 1));
  std::vector<TokenId> like = earlier[other].request.prompt;
  const bool goes_on = rng.chance(0.4);
  if (goes_on) like.insert(like.end(), earlier[other].answer.begin(), earlier[other].answer.end());
  std::vector<TokenId>& prompt = spec.request.prompt;
  const auto common = static_cast<std::ptrdiff_t>(goes_on ? std::ssize(like) : rng.between(1, std::ssize(like)));
  prompt.erase(prompt.begin(), prompt.begin() + std::min(common, std::ssize(prompt) - 1));
  prompt.insert(prompt.begin(), like.begin(), like.begin() + common);
  // The smallest pools hold 512 tokens.
  prompt.resize(std::min(prompt.size(), static_cast<size_t>(500 - spec.request.max_new_tokens)));
  spec.request.strategy = rng.chance(0.3) ? Strategy::kSingle : Strategy::kBalanced;
  if (rng.chance(0.2)) spec.request.cache_salt = "other";
  spec.answer.clear();
  find_answer(spec);
}

// Another answer to the same prompt, asked for at the same time: `n`.
RequestSpec draw_choice(Prng& rng, const RequestSpec& first, int32_t number) {
  RequestSpec spec = first;
  spec.number = number;
  spec.request.external_id = "choice-" + std::to_string(number) + " of " + first.request.external_id;
  spec.request.sampling.temperature = 0.8f;
  spec.request.sampling.seed = rng.next();
  spec.request.strategy = rng.chance(0.3) ? Strategy::kSingle : Strategy::kBalanced;
  spec.cancel_after.reset();
  if (rng.chance(0.15)) spec.cancel_after = rng.duration(0ms, 500ms);
  spec.answer.clear();
  find_answer(spec);
  return spec;
}

void draw_weather(Prng& rng, Scenario& s) {
  auto sometimes = [&](double chance, double low, double high) {
    return rng.chance(chance) ? low + (high - low) * rng.uniform() : 0.0;
  };
  s.network = {.latency_mean = rng.duration(50us, rng.chance(0.3) ? 30ms : 2ms),
               .break_probability = sometimes(0.4, 0.0003, 0.004),
               .unnoticed_probability = sometimes(0.5, 0.1, 0.9)};
  s.kv = {.latency_mean = rng.duration(20us, rng.chance(0.3) ? 10ms : 500us),
          .bytes_per_second = std::exp(std::log(2e5) + rng.uniform() * std::log(500.0)),
          .reorder_probability = sometimes(0.6, 0.01, 0.5),
          .corrupt_probability = sometimes(0.4, 0.001, 0.02),
          .foreign_probability = sometimes(0.2, 0.001, 0.01),
          .break_probability = sometimes(0.3, 0.001, 0.01),
          .stall_probability = sometimes(0.3, 0.001, 0.01),
          .stall_mean = rng.duration(100ms, 6s),
          .unnoticed_probability = sometimes(0.5, 0.1, 1.0),
          .close_max = rng.duration(1ms, 100ms)};
  s.lane = {.job_mean = rng.duration(20us, 3ms), .slow_probability = sometimes(0.4, 0.001, 0.02)};
  s.disk = {.write_mean = rng.duration(200us, rng.chance(0.3) ? 200ms : 5ms),
            .error_probability = sometimes(0.15, 0.01, 0.1)};
}

void draw_nemesis(Prng& rng, NemesisPlan& plan) {
  auto weight = [&](double chance) { return rng.chance(chance) ? static_cast<int32_t>(rng.between(1, 5)) : 0; };
  plan = {.interval_mean = rng.duration(200ms, 1500ms),
          .kill_prefill = weight(0.5),
          .kill_decode = weight(0.4),
          .kill_coordinator = weight(0.3),
          .pause = weight(0.4),
          .cut_one_way = weight(0.3),
          .cut_both_ways = weight(0.3),
          .down_max = rng.duration(100ms, 3s),
          .pause_max = rng.duration(200ms, 6s),
          .cut_max = rng.duration(200ms, 12s)};
}

}  // namespace

std::span<const NamedMutant> all_mutants() { return kMutants; }

Result<Mutant> find_mutant(std::string_view name) {
  std::string names;
  for (const NamedMutant& mutant : kMutants) {
    if (name == mutant.name) return mutant.mutant;
    names += std::string(names.empty() ? "" : ", ") + mutant.name;
  }
  return fail(ErrorCode::kInvalidArgument, "unknown mutant '" + std::string(name) + "'; use one of " + names, "mutant");
}

Scenario draw_scenario(uint64_t seed) {
  Prng rng(seed ^ 0x5CE9A210);
  Scenario s{.seed = seed};
  s.prefill_workers = static_cast<int32_t>(rng.between(1, 4));
  s.decode_workers = static_cast<int32_t>(rng.between(1, 2));
  s.pool_pages = rng.chance(0.3) ? rng.between(24, 60) : rng.between(100, 400);
  s.ack_lost_probability = rng.chance(0.5) ? 0.3 * rng.uniform() : 0;
  s.safety = rng.duration(2s, 6s);
  draw_weather(rng, s);
  draw_nemesis(rng, s.nemesis);
  Prng stick_rng(seed ^ 0x57AC1);  // apart, so that it changes nothing else of a seed
  if (stick_rng.chance(0.2)) s.nemesis.stick_lane = static_cast<int32_t>(stick_rng.between(1, 3));
  Prng score_rng(seed ^ 0x5C08E5);  // likewise
  Prng alike_rng(seed ^ 0xCAC4E);  // likewise
  Prng finish_rng(seed ^ 0xF1415);  // likewise
  Prng choice_rng(seed ^ 0xC401CE);  // likewise
  const auto requests = static_cast<int32_t>(rng.between(4, 14));
  for (int32_t number = 0; number < requests; ++number) {
    RequestSpec spec = draw_request(rng, number);
    draw_beginning(alike_rng, s.requests, spec);
    spec.submit_at = rng.duration(0s, s.safety);
    if (rng.chance(0.15)) spec.cancel_after = rng.duration(0ms, 500ms);
    if (rng.chance(0.2)) spec.request.deadline = rng.duration(50ms, 3s);
    if (!spec.is_job && score_rng.chance(0.4)) {
      spec.request.prompt_logprobs = static_cast<int32_t>(score_rng.between(0, 3));
      find_scores(spec);
    }
    if (!spec.is_job && finish_rng.chance(0.2)) spec.finish_at = 1 + finish_rng.below(10);
    s.requests.push_back(std::move(spec));
    const size_t first = s.requests.size() - 1;
    for (int64_t more = choice_rng.chance(0.3) ? choice_rng.between(1, 3) : 0; more > 0; --more)
      s.requests.push_back(draw_choice(choice_rng, s.requests[first], 100 + static_cast<int32_t>(s.requests.size())));
  }
  return s;
}

void calm(Scenario& s) {
  s.network = {.latency_mean = 500us};
  s.kv = {.latency_mean = 100us, .bytes_per_second = 1e8, .close_max = 5ms};
  s.lane = {.job_mean = 100us};
  s.disk = {.write_mean = 1ms};
  s.ack_lost_probability = 0;
}

}  // namespace runahead::test
