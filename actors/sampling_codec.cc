#include "actors/sampling_codec.h"

#include <algorithm>

namespace runahead {
namespace {

constexpr float kLogprobMin = -9999;  // of what cannot be: OpenAI's own number, and JSON has no infinity

}  // namespace

void encode(const SamplingParams& from, proto::Sampling& to) {
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_min_p(from.min_p);
  to.set_presence_penalty(from.presence_penalty);
  to.set_frequency_penalty(from.frequency_penalty);
  to.set_repetition_penalty(from.repetition_penalty);
  for (const auto& [token, bias] : from.logit_bias) {
    proto::Sampling::Bias* entry = to.add_logit_bias();
    entry->set_token(token);
    entry->set_bias(bias);
  }
  to.mutable_banned()->Add(from.banned.begin(), from.banned.end());
  to.set_banned_before(from.banned_before);
  to.set_grammar(from.grammar);
  to.set_seed(from.seed);
  to.set_top_logprobs(from.top_logprobs);
}

SamplingParams decode(const proto::Sampling& from) {
  SamplingParams to{.temperature = from.temperature(),
                    .top_k = from.top_k(),
                    .top_p = from.top_p(),
                    .min_p = from.min_p(),
                    .presence_penalty = from.presence_penalty(),
                    .frequency_penalty = from.frequency_penalty(),
                    .repetition_penalty = from.repetition_penalty(),
                    .banned = {from.banned().begin(), from.banned().end()},
                    .banned_before = from.banned_before(),
                    .grammar = from.grammar(),
                    .seed = from.seed(),
                    .top_logprobs = from.top_logprobs()};
  for (const auto& entry : from.logit_bias()) to.logit_bias.emplace_back(entry.token(), entry.bias());
  return to;
}

void encode(const SampledToken& from, proto::Token& to) {
  to.set_id(from.token);
  to.set_logprob(std::max(from.logprob, kLogprobMin));
  for (const TokenLogprob& entry : from.top) {
    proto::Logprob* logprob = to.add_top();
    logprob->set_token(entry.token);
    logprob->set_logprob(std::max(entry.logprob, kLogprobMin));
  }
}

SampledToken decode(const proto::Token& from) {
  SampledToken to{.token = from.id(), .logprob = from.logprob()};
  for (const auto& entry : from.top()) to.top.push_back({.token = entry.token(), .logprob = entry.logprob()});
  return to;
}

}  // namespace runahead
