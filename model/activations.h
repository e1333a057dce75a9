// Activations: the Hidden of the transformer. Rows are tokens: a chunk's, or one of each sequence of a decode batch.
// Queries and attention sums lie by KV head, so that the rows of one query group and consecutive tokens are one block.
#pragma once

#include <cstring>
#include <vector>

#include "base/memory.h"
#include "kernels/ops.h"
#include "model/engine.h"

namespace runahead {

class Activations final : public Hidden {
 public:
  struct Place {
    KvLease* kv = nullptr;
    int32_t position = -1;
  };

  Activations(const ModelShape& shape, size_t query_row_bytes, int32_t rows);

  int32_t rows() const { return rows_; }
  float* row(int32_t r) { return x_.as<float>().data() + static_cast<size_t>(r) * model_dim_; }
  const std::vector<Place>& places() const { return places_; }
  // Says where row r stands and computes its rotary angles (in double, so that long contexts keep their precision).
  void place(int32_t r, Place place, const std::vector<double>& frequencies);
  const float* cos_sin(int32_t r) const { return cos_sin_.as<float>().data() + static_cast<size_t>(r) * head_dim_; }

  std::byte* query(int32_t kv_head, int32_t r, int32_t in_group) {
    return query_.data() + (group_row(kv_head, r) + static_cast<size_t>(in_group)) * query_row_bytes_;
  }
  float* attention(int32_t kv_head, int32_t r) {
    return attention_.as<float>().data() + group_row(kv_head, r) * head_dim_;
  }
  float* row_max(int32_t kv_head, int32_t r) { return row_max_.data() + group_row(kv_head, r); }
  float* row_sum(int32_t kv_head, int32_t r) { return row_sum_.as<float>().data() + group_row(kv_head, r) * 16; }
  // Before the first page of a layer.
  void clear_attention(int32_t r);
  void keep_last_row();

 private:
  // First of the group's rows of row r: everything by KV head is [num_kv_heads, rows, group, ...].
  size_t group_row(int32_t kv_head, int32_t r) const {
    return (static_cast<size_t>(kv_head) * static_cast<size_t>(rows_) + static_cast<size_t>(r)) * group_;
  }
  void keep_last_of(AlignedBuffer& buffer, size_t row_bytes, int32_t copies) const;

  size_t model_dim_, head_dim_, group_, query_row_bytes_;
  int32_t num_kv_heads_;
  int32_t rows_;
  AlignedBuffer x_;             // [rows, model_dim]
  AlignedBuffer cos_sin_;       // [rows, 2, head_dim / 2]
  AlignedBuffer query_;         // [num_kv_heads, rows, group] query rows
  AlignedBuffer attention_;     // [num_kv_heads, rows, group, head_dim]
  AlignedBuffer row_sum_;       // [num_kv_heads, rows, group, 16]
  std::vector<float> row_max_;  // [num_kv_heads, rows, group]
  std::vector<Place> places_;   // [rows]
};

}  // namespace runahead
