#include "model/cuda_transformer/cuda_activations.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace runahead {

CudaActivations::CudaActivations(const cuda::CudaOps& ops, const ModelConfig& config, int32_t padded_dim, int32_t rows)
    : ops_(ops),
      rope_(config.ropes.front()),
      model_dim_(static_cast<size_t>(config.shape.model_dim)),
      qkv_dim_(static_cast<size_t>((config.shape.num_heads + 2 * config.shape.num_kv_heads) * config.shape.head_dim)),
      rotated_(2 * rope_.frequencies.size()),
      queries_dim_(static_cast<size_t>(config.shape.num_heads * padded_dim)),
      places_(static_cast<size_t>(rows)) {
  const ModelShape& s = config.shape;
  const auto count = static_cast<size_t>(rows);
  const auto widest = static_cast<size_t>(cuda_depth(std::max(s.model_dim, s.num_heads * s.head_dim)));
  x = need_device_array<float>(ops, count * model_dim_);
  qkv = need_device_array<float>(ops, count * qkv_dim_);
  cos_sin = need_device_array<float>(ops, count * rotated_);
  queries = need_device_array<uint16_t>(ops, count * queries_dim_);
  sums = need_device_array<float>(ops, count * queries_dim_);
  state = need_device_array<float>(ops, count * static_cast<size_t>(s.num_heads) * 2);
  operand = need_device_array<uint16_t>(ops, count * widest);
  inner = need_device_array<uint16_t>(ops, count * static_cast<size_t>(cuda_depth(s.ffn_dim)));
  keys = need_device_array<uint16_t*>(ops, count);
  inner.clear();
}

void CudaActivations::place(std::vector<Place> places) {
  places_ = std::move(places);
  const size_t half = rotated_ / 2;
  std::vector<float> angles(places_.size() * rotated_);
  for (size_t r = 0; r < places_.size(); ++r)
    for (size_t i = 0; i < half; ++i) {
      const double angle = places_[r].position * rope_.frequencies[i];
      angles[r * rotated_ + i] = static_cast<float>(std::cos(angle));
      angles[r * rotated_ + half + i] = static_cast<float>(std::sin(angle));
    }
  cos_sin.fill(angles);
}

void CudaActivations::keep_last_row() {
  const int32_t last = rows() - 1;
  if (last == 0) return;
  ops_.copy(x.data(), row(last), model_dim_ * sizeof(float));
  ops_.copy(queries.data(), queries_row(last), queries_dim_ * sizeof(uint16_t));
  places_ = {places_.back()};
}

}  // namespace runahead
