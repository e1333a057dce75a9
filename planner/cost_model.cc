#include "planner/cost_model.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace runahead {
namespace {

constexpr double kDefaultFlops = 200e9;           // two AVX-512 cores on float32 matrix products
constexpr double kDefaultAttentionFlops = 100e9;  // softmax included: about half
constexpr LinkSpeed kDefaultLink = {.latency_seconds = 100e-6, .bytes_per_second = 1.25e9};  // 10 Gbit/s Ethernet

}  // namespace

ModelCost model_cost(const ModelShape& shape, size_t page_bytes) {
  RUNAHEAD_CHECK(shape.num_layers > 0 && shape.model_dim > 0 && shape.num_heads > 0 && shape.num_kv_heads > 0 &&
                     shape.head_dim > 0 && shape.ffn_dim > 0 && shape.vocab_size > 0,
                 "a model has dimensions");
  const double layers = shape.num_layers, model_dim = shape.model_dim;
  const double heads_dim = static_cast<double>(shape.num_heads) * shape.head_dim;
  const double kv_dim = static_cast<double>(shape.num_kv_heads) * shape.head_dim;
  const double qkv = model_dim * (heads_dim + 2 * kv_dim);  // multiply-adds a token and layer
  const double layer = qkv + heads_dim * model_dim + shape.ffn_matrices * model_dim * shape.ffn_dim;  // + output, MLP
  double windowed = 0, window = 0;  // layers, and their tokens together
  for (const int32_t tokens : shape.windows)
    if (tokens > 0) ++windowed, window += tokens + kPageTokens / 2.0;  // half a page more than needed
  return {
      .num_layers = shape.num_layers,
      .kv_bytes_per_token = static_cast<double>(page_bytes) * layers / kPageTokens,
      .qkv_share = qkv / layer,
      .head_tokens = model_dim * shape.vocab_size / (layers * layer),
      .linear_flops_per_token = 2 * layers * layer,
      .attention_flops_per_pair = 4 * layers * heads_dim,  // QK^T and PV
      .windowed_share = windowed / layers,
      .window = windowed > 0 ? window / windowed : 0,
  };
}

double attention_pairs(const ModelCost& model, double prefix, double n) {
  const double full = n * prefix + model.diagonal_share * n * n;
  if (model.windowed_share == 0) return full;
  const double filling = std::clamp(model.window - prefix, 0.0, n);  // tokens that see less than a window
  const double windowed = filling * prefix + model.diagonal_share * filling * filling + (n - filling) * model.window;
  return (1 - model.windowed_share) * full + model.windowed_share * std::min(windowed, full);
}

double tokens_in_reach(const ModelCost& model, double prefix) {
  if (model.windowed_share == 0) return prefix;
  return (1 - model.windowed_share) * prefix + model.windowed_share * std::min(prefix, model.window);
}

double prefix_of_reach(const ModelCost& model, double tokens) {
  if (model.windowed_share == 0 || tokens <= model.window) return tokens;
  if (model.windowed_share >= 1) return std::numeric_limits<double>::infinity();
  return (tokens - model.windowed_share * model.window) / (1 - model.windowed_share);
}

Work chunk_work(const ModelCost& model, TokenRange chunk, bool is_last_rank) {
  const double n = chunk.size(), prefix = chunk.begin, in_reach = tokens_in_reach(model, prefix);
  Work work{.tokens = n, .pairs = attention_pairs(model, prefix, n), .chunks = 1, .prefix_tokens = in_reach};
  if (model.skip_last_layer) {
    const double last_layer = 1.0 / model.num_layers;
    work.tokens -= n * (1 - model.qkv_share) * last_layer;
    work.pairs -= work.pairs * last_layer;
    if (!is_last_rank) work.prefix_tokens -= in_reach * last_layer;
    if (is_last_rank) {
      work.tokens += (1 - model.qkv_share) * last_layer;
      work.pairs += tokens_in_reach(model, chunk.end) * last_layer;
    }
  }
  if (is_last_rank) work.tokens += model.head_tokens;
  return work;
}

double service_seconds(const ModelCost& model, std::span<const WorkerProfile> workers, int32_t context_len) {
  const Work whole = chunk_work(model, {0, context_len}, true);
  double prompts_per_second = 0;
  for (const WorkerProfile& worker : workers) prompts_per_second += 1 / compute_seconds(worker.speed, whole);
  return prompts_per_second > 0 ? 1 / prompts_per_second : 0;
}

WorkerSpeed default_speed(const ModelCost& model) {
  return {.seconds_per_token = model.linear_flops_per_token / kDefaultFlops,
          .seconds_per_pair = model.attention_flops_per_pair / kDefaultAttentionFlops};
}

LinkSpeed default_link() { return kDefaultLink; }

}  // namespace runahead
