#include "bench/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/transformer/prefill.h"

namespace runahead {
namespace {

// Tokens of the prefill that is not counted: enough to touch every weight and to wake every thread. A GPU's is as long as the
// others: its memory for activations grows to what the first one needs.
constexpr int32_t kWarmUpTokens = 512;
// Eight times the last-level cache of the machines measured so far (32 MiB), so that reading it is reading memory.
constexpr size_t kBandwidthBytes = 256 << 20;

std::vector<TokenId> random_tokens(Rng& rng, int32_t count, int32_t vocab) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(rng.next() % static_cast<uint64_t>(vocab)));
  return tokens;
}

uint64_t sum_of(std::span<const uint64_t> words) {
  uint64_t sums[8] = {};  // eight chains, so that the loads and not the adds are what is timed
  for (size_t i = 0; i + 8 <= words.size(); i += 8)
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  uint64_t all = 0;
  for (uint64_t sum : sums) all += sum;
  return all;
}

// Bytes a second that the team's threads read, best of three runs over a buffer that no cache holds.
double read_bandwidth(ThreadTeam& team) {
  AlignedBuffer buffer(kBandwidthBytes);
  std::memset(buffer.data(), 1, buffer.size());  // untouched pages would all be one page of zeros
  const std::span<const uint64_t> words = buffer.as<uint64_t>();
  const size_t share = words.size() / static_cast<size_t>(team.size()) / 8 * 8;
  std::vector<uint64_t> sums(static_cast<size_t>(team.size()));
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    const double elapsed = seconds_of([&] {
      team.run(team.size(), [&](int32_t part, int32_t) {
        const auto p = static_cast<size_t>(part);
        sums[p] = sum_of(words.subspan(p * share, share));
      });
    });
    for (uint64_t sum : sums) RUNAHEAD_CHECK(sum == share * 0x0101010101010101, "every byte was read");
    best = std::max(best, static_cast<double>(share * sums.size() * sizeof(uint64_t)) / elapsed);
  }
  return best;
}

// What an engine's CPU allows, timed between the repetitions. Of a GPU nothing is.
class CpuPeaks {
 public:
  explicit CpuPeaks(const Transformer* cpu) {
    if (cpu == nullptr) return;
    team_.emplace(cpu->threads());
    instructions_.emplace(cpu->ops(), *team_);
  }
  void measure() {
    if (instructions_) instructions_->measure();
  }
  double operations_per_second() const { return instructions_ ? instructions_->operations_per_second() : 0; }
  double bytes_per_second() { return team_ ? read_bandwidth(*team_) : 0; }

 private:
  std::optional<ThreadTeam> team_;
  std::optional<InstructionPeak> instructions_;
};

// Of the matrices of one layer, for one token; `kv_only`: the rows that end in K and V.
double layer_weights(const ModelShape& s, bool kv_only) {
  const double dim = s.model_dim, q = double{1} * s.num_heads * s.head_dim,
               kv = double{2} * s.num_kv_heads * s.head_dim;
  return kv_only ? kv * dim : (q + kv) * dim + q * dim + double{3} * s.ffn_dim * dim;
}

}  // namespace

const Transformer* cpu_engine(const Engine& engine) { return dynamic_cast<const Transformer*>(&engine); }

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Spread spread_of(std::vector<double> values) {
  RUNAHEAD_CHECK(!values.empty(), "a spread is of at least one value");
  std::sort(values.begin(), values.end());
  const auto quantile = [&](double q) {
    const double at = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (at - std::floor(at)) * (values[above] - values[below]);
  };
  return {quantile(0), quantile(0.25), quantile(0.5), quantile(0.75), quantile(1)};
}

void InstructionPeak::measure() {
  constexpr int64_t kRounds = 100'000;  // about 0.5 ms of 12 chains: waking the threads is little beside it
  for (int run = 0; run < 8; ++run) {
    std::vector<double> rates(static_cast<size_t>(team_.size()));
    team_.run(team_.size(), [&](int32_t part, int32_t) {
      double done = 0;
      const double elapsed = seconds_of([&] { done = ops_.issue_dots(kRounds); });
      rates[static_cast<size_t>(part)] = done / elapsed;
    });
    double all = 0;
    for (double rate : rates) all += rate;
    best_ = std::max(best_, all);
  }
}

double prefill_operations(const ModelShape& s, int32_t tokens) {
  const double n = tokens, layers = s.num_layers, q_dim = double{1} * s.num_heads * s.head_dim;
  const double pairs = n * (n + 1) / 2;
  const double full_layers = (layers - 1) * (n * layer_weights(s, false) + 2 * pairs * q_dim);
  // The last layer: K and V of every token, the rest for the last one.
  const double last = (n - 1) * layer_weights(s, true) + layer_weights(s, false) + 2 * n * q_dim;
  return 2 * (full_layers + last + double{1} * s.vocab_size * s.model_dim);
}

double decode_operations(const ModelShape& s, double keys) {
  const double q_dim = double{1} * s.num_heads * s.head_dim;
  return 2 * (s.num_layers * (layer_weights(s, false) + 2 * keys * q_dim) + double{1} * s.vocab_size * s.model_dim);
}

Result<BenchResult> bench_prefill(Engine& engine, int32_t tokens, int32_t repetitions) {
  if (tokens < 1 || repetitions < 1)
    return fail(ErrorCode::kInvalidArgument, "tokens and repetitions must be at least 1");
  const int32_t vocab = engine.shape().vocab_size;
  SeededRng rng(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  TRY(check_tokens(engine, random_tokens(rng, tokens, vocab)));
  const Transformer* cpu = cpu_engine(engine);
  SequenceCache cache(engine, tokens);
  CpuPeaks peaks(cpu);
  {
    const int32_t warm_up = cpu != nullptr ? std::min(tokens, kWarmUpTokens) : tokens;
    const std::shared_ptr<KvLease> kv = TRY(cache.lease(warm_up));
    prefill(engine, *kv, random_tokens(rng, warm_up, vocab));
  }
  std::vector<double> seconds;
  for (int32_t i = 0; i < repetitions; ++i) {
    peaks.measure();
    const std::vector<TokenId> prompt = random_tokens(rng, tokens, vocab);
    const std::shared_ptr<KvLease> kv = TRY(cache.lease(tokens));
    seconds.push_back(seconds_of([&] { prefill(engine, *kv, prompt); }));
  }
  peaks.measure();
  return BenchResult{.tokens = tokens,
                     .seconds = spread_of(std::move(seconds)),
                     .operations = prefill_operations(engine.shape(), tokens),
                     .peak_operations_per_second = peaks.operations_per_second()};
}

Result<std::vector<BenchResult>> bench_decode(Engine& engine, int32_t context, std::span<const int32_t> batches,
                                              int32_t steps) {
  if (context < 0 || steps < 1 || batches.empty() || *std::min_element(batches.begin(), batches.end()) < 1)
    return fail(ErrorCode::kInvalidArgument, "batch and steps must be at least 1, context at least 0");
  const ModelShape& s = engine.shape();
  const int32_t tokens = context + steps + 1, batch_max = *std::max_element(batches.begin(), batches.end());
  if (tokens > s.context_len)
    return fail(ErrorCode::kContextOverflow,
                "context and steps do not fit the model's context of " + std::to_string(s.context_len), "context");
  SeededRng rng(static_cast<uint64_t>(context));
  SequenceCache cache(engine, tokens, batch_max);
  std::vector<std::shared_ptr<KvLease>> sequences;
  for (int32_t b = 0; b < batch_max; ++b) {
    sequences.push_back(TRY(cache.lease(tokens)));
    if (context > 0) prefill(engine, *sequences.back(), random_tokens(rng, context, s.vocab_size));
  }
  const Transformer* cpu = cpu_engine(engine);
  CpuPeaks peaks(cpu);
  const double bandwidth = peaks.bytes_per_second();
  const double keys = context + 1 + 0.5 * steps;  // of a step in the middle
  const double kv_bytes = keys / kPageTokens * static_cast<double>(engine.page_bytes()) * s.num_layers;
  std::vector<BenchResult> results;
  for (int32_t batch : batches) {
    std::vector<float> logits(static_cast<size_t>(batch) * static_cast<size_t>(s.vocab_size));
    std::vector<double> seconds;
    peaks.measure();
    for (int32_t step = 0; step < steps + 1; ++step) {  // the first warms up and is not counted
      std::vector<DecodeRow> rows;
      for (int32_t b = 0; b < batch; ++b)
        rows.push_back(
            {sequences[static_cast<size_t>(b)].get(), random_tokens(rng, 1, s.vocab_size)[0], context + step});
      const double elapsed = seconds_of([&] { engine.decode(rows, logits); });
      if (step > 0) seconds.push_back(elapsed);
    }
    peaks.measure();
    results.push_back({.tokens = batch,
                       .context = context,
                       .seconds = spread_of(std::move(seconds)),
                       .operations = batch * decode_operations(s, keys),
                       .bytes = cpu != nullptr ? static_cast<double>(cpu->packed_bytes()) + batch * kv_bytes : 0,
                       .peak_operations_per_second = peaks.operations_per_second(),
                       .peak_bytes_per_second = bandwidth});
  }
  return results;
}

}  // namespace runahead
