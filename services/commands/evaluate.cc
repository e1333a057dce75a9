// runahead logits, perplexity: what the model says, for comparison with other engines. One engine in this process.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/perplexity.h"
#include "model/sampler.h"
#include "model/tokenizer/tokenizer.h"
#include "model/transformer/prefill.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/engine/engine_loading.h"

namespace runahead {
namespace {

using nlohmann::json;

struct EvaluateOptions {
  EngineFlags engine;
  std::string token_ids_file, file;
  int top = 20, context = 1024;
};

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

Result<void> logits(const EvaluateOptions& options, const CommonOptions& common) {
  const auto ids = TRY(read_token_ids(options.token_ids_file));
  const auto engine = TRY(open_engine(options.engine, !common.quiet && !common.json()));
  TRY(check_tokens(*engine, ids));
  SequenceCache cache(*engine, static_cast<int32_t>(ids.size()));
  const auto kv = TRY(cache.lease(static_cast<int32_t>(ids.size())));
  const std::vector<float> values = prefill(*engine, *kv, ids);
  TRY(check_logits(values));
  const double norm = log_sum_exp(values);
  std::vector<TokenId> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto top = std::min<size_t>(static_cast<size_t>(options.top), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(top), order.end(), [&](TokenId a, TokenId b) {
    return values[static_cast<size_t>(a)] != values[static_cast<size_t>(b)]
               ? values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]
               : a < b;
  });
  json rows = json::array();
  for (size_t i = 0; i < top; ++i)
    rows.push_back({{"id", order[i]}, {"logprob", values[static_cast<size_t>(order[i])] - norm}});
  if (common.json()) {
    print_json({{"top", rows}, {"compute", engine->compute_name()}});
  } else {
    for (const json& row : rows) std::printf("%8d %10.5f\n", row["id"].get<int>(), row["logprob"].get<double>());
  }
  return {};
}

Result<void> score_text(const EvaluateOptions& options, const CommonOptions& common) {
  const auto engine = TRY(open_engine(options.engine, !common.quiet && !common.json()));
  if (options.context > engine->shape().context_len)
    return fail(ErrorCode::kContextOverflow,
                "--ctx " + std::to_string(options.context) + " is more than the model's context of " +
                    std::to_string(engine->shape().context_len),
                "ctx");
  const Tokenizer tokenizer = TRY(Tokenizer::load(engine->file()));
  const auto ids = TRY(tokenizer.encode(TRY(read_text_file(options.file)), false));
  const Perplexity score = TRY(perplexity(*engine, ids, options.context));
  if (common.json()) {
    print_json({{"perplexity", score.perplexity},
                {"tokens_scored", score.tokens_scored},
                {"compute", engine->compute_name()}});
  } else {
    std::printf("perplexity %.5f over %lld tokens (%s)\n", score.perplexity,
                static_cast<long long>(score.tokens_scored), engine->compute_name().c_str());
  }
  return {};
}

void add_engine_flags(CLI::App& command, EngineFlags& engine) {
  add_model_flags(command, engine.model);
  add_compute_flag(command, engine.compute);
  add_threads_flag(command, engine.threads);
  add_packed_cache_flag(command, engine.packed_cache);
}

}  // namespace

void add_logits(CommandLine& line) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = line.add("logits", "print the most likely next tokens after token ids",
                               [options](const CommonOptions& common) { return logits(*options, common); });
  add_engine_flags(*command, options->engine);
  command->add_option("--token-ids-file", options->token_ids_file, "a JSON array of token ids, - for standard input")
      ->required();
  command->add_option("--top", options->top, "how many")->check(whole_number(1, 1 << 20));
}

void add_perplexity(CommandLine& line) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = line.add("perplexity", "score a text by llama.cpp's rule",
                               [options](const CommonOptions& common) { return score_text(*options, common); });
  add_engine_flags(*command, options->engine);
  command->add_option("-f,--file", options->file, "the text, - for standard input")->required();
  command->add_option("--ctx", options->context, "tokens a chunk")->check(whole_number(4, 1 << 24));
}

}  // namespace runahead
