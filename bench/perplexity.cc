#include "bench/perplexity.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "model/sampler.h"
#include "model/transformer/prefill.h"

namespace runahead {
namespace {

// Positions whose logits are in memory at once: 64 x 49,152 x 4 B = 12 MiB.
constexpr int32_t kRowsAtOnce = 64;

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
}

Result<void> check_text(const Transformer& engine, std::span<const TokenId> tokens, int32_t ctx) {
  if (ctx < 4) return fail(ErrorCode::kInvalidArgument, "ctx must be at least 4", "ctx");
  if (tokens.size() < static_cast<size_t>(ctx))
    return fail(ErrorCode::kInvalidArgument,
                "the text has " + std::to_string(tokens.size()) + " tokens, but one chunk needs " +
                    std::to_string(ctx) + "; use a longer text or a smaller ctx",
                "ctx");
  for (size_t at = 0; at + static_cast<size_t>(ctx) <= tokens.size(); at += static_cast<size_t>(ctx))
    TRY(check_tokens(engine, tokens.subspan(at, static_cast<size_t>(ctx))));
  return {};
}

// Rows of logits of the engines at one scored position, and the token that follows it.
using Scorer = std::function<void(std::span<const std::span<const float>> logits, TokenId next)>;

// Calls `score` for every scored position of every whole chunk, with one row of logits an engine.
Result<void> score_chunks(std::span<Transformer* const> engines, std::span<const TokenId> tokens, int32_t ctx,
                          const Scorer& score) {
  for (const Transformer* engine : engines) TRY(check_text(*engine, tokens, ctx));
  const auto vocab = static_cast<size_t>(engines.front()->shape().vocab_size);
  std::vector<std::vector<float>> rows(engines.size(), std::vector<float>(kRowsAtOnce * vocab));
  std::vector<std::unique_ptr<SequenceCache>> caches;
  for (Transformer* engine : engines) caches.push_back(std::make_unique<SequenceCache>(*engine, ctx));
  for (size_t at = 0; at + static_cast<size_t>(ctx) <= tokens.size(); at += static_cast<size_t>(ctx)) {
    const std::span<const TokenId> chunk = tokens.subspan(at, static_cast<size_t>(ctx));
    std::vector<std::unique_ptr<Hidden>> hidden;
    for (size_t e = 0; e < engines.size(); ++e) {
      const std::shared_ptr<KvLease> kv = TRY(caches[e]->lease(ctx));
      hidden.push_back(run_layers(*engines[e], *kv, chunk));
    }
    for (int32_t begin = ctx / 2; begin < ctx - 1; begin += kRowsAtOnce) {
      const int32_t count = std::min(kRowsAtOnce, ctx - 1 - begin);
      for (size_t e = 0; e < engines.size(); ++e)
        engines[e]->logits_of_rows(*hidden[e], begin, count,
                                   std::span(rows[e]).first(static_cast<size_t>(count) * vocab));
      for (int32_t r = 0; r < count; ++r) {
        std::vector<std::span<const float>> logits;
        for (const auto& buffer : rows)
          logits.push_back(std::span(buffer).subspan(static_cast<size_t>(r) * vocab, vocab));
        for (const std::span<const float> row : logits) TRY(check_logits(row));
        score(logits, chunk[static_cast<size_t>(begin + r + 1)]);
      }
    }
  }
  return {};
}

}  // namespace

Result<Perplexity> perplexity(Transformer& engine, std::span<const TokenId> tokens, int32_t ctx) {
  double loss = 0;
  Perplexity result;
  Transformer* const engines[] = {&engine};
  TRY(score_chunks(engines, tokens, ctx, [&](std::span<const std::span<const float>> logits, TokenId next) {
    loss += log_sum_exp(logits[0]) - logits[0][static_cast<size_t>(next)];
    ++result.tokens_scored;
  }));
  result.perplexity = std::exp(loss / static_cast<double>(result.tokens_scored));
  return result;
}

Result<std::vector<Agreement>> compare_engines(Transformer& base, std::span<Transformer* const> engines,
                                               std::span<const TokenId> tokens, int32_t ctx) {
  struct Sums {
    double loss = 0, kl = 0;
    int64_t same = 0;
  };
  double base_loss = 0;
  int64_t scored = 0;
  std::vector<Sums> sums(engines.size());
  std::vector<Transformer*> all = {&base};
  all.insert(all.end(), engines.begin(), engines.end());
  const auto top = [](std::span<const float> row) { return std::max_element(row.begin(), row.end()) - row.begin(); };
  TRY(score_chunks(all, tokens, ctx, [&](std::span<const std::span<const float>> logits, TokenId next) {
    const std::span<const float> truth = logits[0];
    const double base_sum = log_sum_exp(truth);
    base_loss += base_sum - truth[static_cast<size_t>(next)];
    ++scored;
    for (size_t e = 0; e < sums.size(); ++e) {
      const std::span<const float> row = logits[e + 1];
      const double sum = log_sum_exp(row);
      sums[e].loss += sum - row[static_cast<size_t>(next)];
      sums[e].same += top(truth) == top(row);
      for (size_t i = 0; i < truth.size(); ++i) {
        const double log_p = truth[i] - base_sum;
        sums[e].kl += std::exp(log_p) * (log_p - (row[i] - sum));
      }
    }
  }));
  std::vector<Agreement> agreements;
  const auto count = static_cast<double>(scored);
  for (const Sums& one : sums)
    agreements.push_back({.perplexity_ratio = std::exp((one.loss - base_loss) / count),
                          .same_top = static_cast<double>(one.same) / count,
                          .mean_kl = one.kl / count,
                          .tokens_scored = scored});
  return agreements;
}

}  // namespace runahead
