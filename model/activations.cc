#include "model/activations.h"

#include <algorithm>
#include <cmath>

namespace runahead {

Activations::Activations(const ModelShape& shape, size_t query_row_bytes, int32_t rows)
    : model_dim_(static_cast<size_t>(shape.model_dim)),
      head_dim_(static_cast<size_t>(shape.head_dim)),
      group_(static_cast<size_t>(shape.num_heads / shape.num_kv_heads)),
      query_row_bytes_(query_row_bytes),
      num_kv_heads_(shape.num_kv_heads),
      rows_(rows),
      places_(static_cast<size_t>(rows)) {
  const auto tokens = static_cast<size_t>(rows);
  const size_t query_rows = tokens * static_cast<size_t>(shape.num_heads);
  x_ = AlignedBuffer(tokens * model_dim_ * sizeof(float));
  cos_sin_ = AlignedBuffer(tokens * head_dim_ * sizeof(float));
  query_ = AlignedBuffer(query_rows * query_row_bytes_);
  attention_ = AlignedBuffer(query_rows * head_dim_ * sizeof(float));
  row_sum_ = AlignedBuffer(query_rows * 16 * sizeof(float));
  row_max_.resize(query_rows);
}

void Activations::place(int32_t r, Place place, const std::vector<double>& frequencies) {
  places_[static_cast<size_t>(r)] = place;
  float* angles = cos_sin_.as<float>().data() + static_cast<size_t>(r) * head_dim_;
  for (size_t i = 0; i < head_dim_ / 2; ++i) {
    const double angle = place.position * frequencies[i];
    angles[i] = static_cast<float>(std::cos(angle));
    angles[head_dim_ / 2 + i] = static_cast<float>(std::sin(angle));
  }
}

void Activations::clear_attention(int32_t r) {
  for (int32_t h = 0; h < num_kv_heads_; ++h) {
    std::fill_n(attention(h, r), group_ * head_dim_, 0.0f);
    std::fill_n(row_sum(h, r), group_ * 16, 0.0f);
    std::fill_n(row_max(h, r), group_, kNoScore);
  }
}

// The buffer is [copies, rows, row_bytes]; afterwards [copies, 1, row_bytes].
void Activations::keep_last_of(AlignedBuffer& buffer, size_t row_bytes, int32_t copies) const {
  AlignedBuffer last(static_cast<size_t>(copies) * row_bytes);
  for (size_t c = 0; c < static_cast<size_t>(copies); ++c)
    std::memcpy(last.data() + c * row_bytes, buffer.data() + ((c + 1) * static_cast<size_t>(rows_) - 1) * row_bytes,
                row_bytes);
  buffer = std::move(last);
}

void Activations::keep_last_row() {
  keep_last_of(x_, model_dim_ * sizeof(float), 1);
  keep_last_of(cos_sin_, head_dim_ * sizeof(float), 1);
  keep_last_of(query_, group_ * query_row_bytes_, num_kv_heads_);
  keep_last_of(attention_, group_ * head_dim_ * sizeof(float), num_kv_heads_);
  keep_last_of(row_sum_, group_ * 16 * sizeof(float), num_kv_heads_);
  places_ = {places_.back()};
  rows_ = 1;
  row_max_.assign(group_ * static_cast<size_t>(num_kv_heads_), kNoScore);
}

}  // namespace runahead
