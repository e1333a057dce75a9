// Writes the model of every architecture, runs a prompt and 48 greedy tokens through it, and says what came out, a line of JSON
// each, for who asks another engine about the same file:
//   architecture_runs FOLDER MODE
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "model/transformer/prefill.h"
#include "tests/support/architectures/architecture_models.h"

namespace runahead::test {
namespace {

constexpr int32_t kPromptTokens = 300;  // beyond every window
constexpr int32_t kGreedyTokens = 48, kTop = 20;

std::string list_of(const auto& values) {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "[" : ", ") + std::to_string(value);
  return text + "]";
}

std::vector<TokenId> prompt_for(int32_t vocab_size) {
  SeededRng rng(31);
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < kPromptTokens; ++i)
    prompt.push_back(static_cast<TokenId>(3 + rng.next() % static_cast<uint64_t>(vocab_size - 3)));
  return prompt;
}

std::vector<TokenId> best_first(const std::vector<float>& logits, int32_t count) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(),
                    [&](TokenId a, TokenId b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  ids.resize(static_cast<size_t>(count));
  return ids;
}

std::vector<double> log_probabilities(const std::vector<float>& logits, const std::vector<TokenId>& of) {
  const double most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  std::vector<double> out;
  for (const TokenId id : of) out.push_back(logits[static_cast<size_t>(id)] - most - std::log(sum));
  return out;
}

void run(const std::filesystem::path& folder, const ArchitectureModel& model, ComputeMode mode) {
  const std::filesystem::path path = folder / (model.name + ".gguf");
  write_architecture_model(path, model);
  auto engine = Transformer::load({.model = path, .compute = mode, .threads = 2});
  if (!engine) {
    std::printf("{\"name\": \"%s\", \"error\": \"%s\"}\n", model.name.c_str(), engine.error().message.c_str());
    return;
  }
  const int32_t vocab = (*engine)->shape().vocab_size;
  const std::vector<TokenId> prompt = prompt_for(vocab);
  SequenceCache cache(**engine, kPromptTokens + kGreedyTokens);
  const std::shared_ptr<KvLease> kv = *cache.lease(kPromptTokens + kGreedyTokens);
  std::vector<float> logits = prefill(**engine, *kv, prompt);
  const std::vector<TokenId> top = best_first(logits, kTop);
  const std::vector<double> top_logprobs = log_probabilities(logits, top);
  std::vector<TokenId> greedy;
  std::vector<double> margins;  // by which each was the best: how near another answer was
  for (int32_t i = 0; i < kGreedyTokens; ++i) {
    const std::vector<TokenId> best = best_first(logits, 2);
    greedy.push_back(best.front());
    margins.push_back(double{logits[static_cast<size_t>(best[0])]} - logits[static_cast<size_t>(best[1])]);
    const DecodeRow row{kv.get(), best.front(), kPromptTokens + i};
    (*engine)->decode({&row, 1}, logits);
  }
  std::printf("{\"name\": \"%s\", \"prompt\": %s, \"top\": %s, \"logprobs\": %s, \"greedy\": %s, \"margins\": %s}\n",
              model.name.c_str(), list_of(prompt).c_str(), list_of(top).c_str(), list_of(top_logprobs).c_str(),
              list_of(greedy).c_str(), list_of(margins).c_str());
}

}  // namespace
}  // namespace runahead::test

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: architecture_runs FOLDER MODE\n"), 2;
  const auto mode = runahead::parse_compute_mode(argv[2]);
  if (!mode) return std::fprintf(stderr, "%s\n", mode.error().message.c_str()), 2;
  for (const runahead::test::ArchitectureModel& model : runahead::test::architecture_models())
    runahead::test::run(argv[1], model, *mode);
}
