#include "model/bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>

#include "base/rng.h"
#include "model/prefill.h"

namespace runahead {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<TokenId> random_tokens(Rng& rng, int32_t count, int32_t vocab) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(rng.next() % static_cast<uint64_t>(vocab)));
  return tokens;
}

// Operations a second of `threads` threads that only issue the mode's dot instruction: best of several short runs.
double peak_operations(const OpTable& ops, int32_t threads) {
  ThreadTeam team(threads);
  double best = 0;
  for (int run = 0; run < 8; ++run) {
    std::vector<double> done(static_cast<size_t>(threads));
    constexpr int64_t kRounds = 20'000;  // about 100 us of 12 chains
    const double elapsed = seconds_of([&] {
      team.run(threads, [&](int32_t part, int32_t) { done[static_cast<size_t>(part)] = ops.issue_dots(kRounds); });
    });
    double all = 0;
    for (double d : done) all += d;
    best = std::max(best, all / elapsed);
  }
  return best;
}

BenchResult summarize(std::vector<double> seconds, double tokens_each, double operations_each, double peak) {
  std::sort(seconds.begin(), seconds.end());
  BenchResult result;
  result.seconds = seconds[seconds.size() / 2];
  result.seconds_min = seconds.front();
  result.seconds_max = seconds.back();
  result.tokens_per_second = tokens_each / result.seconds;
  result.giga_ops_per_second = operations_each / result.seconds / 1e9;
  result.peak_fraction = operations_each / result.seconds / peak;
  return result;
}

// Of the matrices of one layer, for one token; `kv_only`: the rows that end in K and V.
double layer_weights(const ModelShape& s, bool kv_only) {
  const double dim = s.model_dim, q = double{1} * s.num_heads * s.head_dim,
               kv = double{2} * s.num_kv_heads * s.head_dim;
  return kv_only ? kv * dim : (q + kv) * dim + q * dim + double{3} * s.ffn_dim * dim;
}

}  // namespace

double prefill_operations(const ModelShape& s, int32_t tokens) {
  const double n = tokens, layers = s.num_layers, q_dim = double{1} * s.num_heads * s.head_dim;
  const double pairs = n * (n + 1) / 2;
  const double full_layers = (layers - 1) * (n * layer_weights(s, false) + 2 * pairs * q_dim);
  // The last layer: QKV of every token, the rest for the last one.
  const double last = n * layer_weights(s, true) + layer_weights(s, false) + 2 * n * q_dim;
  return 2 * (full_layers + last + double{1} * s.vocab_size * s.model_dim);
}

Result<BenchResult> bench_prefill(Transformer& engine, int32_t tokens, int32_t repetitions) {
  if (tokens < 1 || repetitions < 1)
    return fail(ErrorCode::kInvalidArgument, "tokens and repetitions must be at least 1");
  SeededRng rng(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  TRY(check_tokens(engine, random_tokens(rng, tokens, engine.shape().vocab_size)));
  LocalCache cache(engine, tokens);
  double peak = peak_operations(engine.ops(), engine.threads());
  std::vector<double> seconds;
  for (int32_t i = 0; i < repetitions + 1; ++i) {  // the first warms caches and is not counted
    const std::vector<TokenId> prompt = random_tokens(rng, tokens, engine.shape().vocab_size);
    const std::shared_ptr<KvLease> kv = TRY(cache.lease(tokens));
    const double elapsed = seconds_of([&] { prefill(engine, *kv, prompt); });
    if (i > 0) seconds.push_back(elapsed);
  }
  peak = std::max(peak, peak_operations(engine.ops(), engine.threads()));
  BenchResult result = summarize(std::move(seconds), tokens, prefill_operations(engine.shape(), tokens), peak);
  result.tokens = tokens;
  return result;
}

Result<BenchResult> bench_decode(Transformer& engine, int32_t context, int32_t batch, int32_t steps) {
  if (context < 1 || batch < 1 || steps < 1)
    return fail(ErrorCode::kInvalidArgument, "context, batch and steps must be at least 1");
  const ModelShape& s = engine.shape();
  if (context + steps + 1 > s.context_len)
    return fail(ErrorCode::kContextOverflow,
                "context and steps do not fit the model's context of " + std::to_string(s.context_len), "context");
  SeededRng rng(static_cast<uint64_t>(context));
  LocalCache cache(engine, context + steps + 1, batch);
  std::vector<std::shared_ptr<KvLease>> sequences;
  for (int32_t b = 0; b < batch; ++b) {
    sequences.push_back(TRY(cache.lease(context + steps + 1)));
    prefill(engine, *sequences.back(), random_tokens(rng, context, s.vocab_size));
  }
  std::vector<float> logits(static_cast<size_t>(batch) * static_cast<size_t>(s.vocab_size));
  std::vector<double> seconds;
  for (int32_t step = 0; step < steps + 1; ++step) {
    std::vector<DecodeRow> rows;
    for (const auto& kv : sequences) rows.push_back({kv.get(), random_tokens(rng, 1, s.vocab_size)[0], context + step});
    const double elapsed = seconds_of([&] { engine.decode(rows, logits); });
    if (step > 0) seconds.push_back(elapsed);
  }
  const double operations =
      batch * (2 * s.num_layers * (layer_weights(s, false) + 2.0 * context * s.num_heads * s.head_dim) +
               2.0 * s.vocab_size * s.model_dim);
  BenchResult result =
      summarize(std::move(seconds), batch, operations, peak_operations(engine.ops(), engine.threads()));
  result.tokens = context;
  result.batch = batch;
  return result;
}

}  // namespace runahead
