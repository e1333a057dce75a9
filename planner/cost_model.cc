#include "planner/cost_model.h"

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
  const double layer = qkv + heads_dim * model_dim + 3 * model_dim * shape.ffn_dim;  // + output projection + gated MLP
  return {
      .num_layers = shape.num_layers,
      .kv_bytes_per_token = static_cast<double>(page_bytes) * layers / kPageTokens,
      .qkv_share = qkv / layer,
      .head_tokens = model_dim * shape.vocab_size / (layers * layer),
      .linear_flops_per_token = 2 * layers * layer,
      .attention_flops_per_pair = 4 * layers * heads_dim,  // QK^T and PV
  };
}

Work chunk_work(const ModelCost& model, TokenRange chunk, bool is_last_rank) {
  const double n = chunk.size(), prefix = chunk.begin;
  Work work{.tokens = n, .pairs = n * prefix + model.diagonal_share * n * n, .chunks = 1, .prefix_tokens = prefix};
  if (model.skip_last_layer) {
    const double last_layer = 1.0 / model.num_layers;
    work.tokens -= n * (1 - model.qkv_share) * last_layer;
    work.pairs -= work.pairs * last_layer;
    if (!is_last_rank) work.prefix_tokens -= prefix * last_layer;
    if (is_last_rank) {
      work.tokens += (1 - model.qkv_share) * last_layer;
      work.pairs += chunk.end * last_layer;
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
