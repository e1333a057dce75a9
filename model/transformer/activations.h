// Activations: the Hidden of the transformer. Rows are tokens: a chunk's, or one of each sequence of a decode batch.
// Queries and attention sums lie in tiles (kernels/ops.h): one KV head's query group of one page of a chunk, or of one
// sequence of a batch. Lengths are the padded ones; the padding of rows is zero.
#pragma once

#include <cstring>
#include <vector>

#include "base/memory.h"
#include "kernels/ops.h"
#include "model/model_config.h"
#include "model/weights/padded_shape.h"

namespace runahead {

class Activations final : public Hidden {
 public:
  struct Place {
    KvLease* kv = nullptr;
    int32_t position = -1;
  };

  // tile_tokens: kPageTokens for a chunk, 1 for a batch.
  Activations(const ModelConfig& config, const OpTable& ops, int32_t rows, int32_t tile_tokens);

  size_t bytes() const { return x_.size() + cos_sin_.size() + tiles_.size() + places_.size() * sizeof(Place); }

  int32_t rows() const { return rows_; }
  float* row(int32_t r) { return x_.as<float>().data() + static_cast<size_t>(r) * model_dim_; }
  const std::vector<Place>& places() const { return places_; }
  // Says where row r stands and computes its rotary angles (in double, so that long contexts keep their precision).
  void place(int32_t r, Place place, const std::vector<RopeConfig>& ropes);
  // Of ModelConfig::ropes[rope].
  const float* cos_sin(int32_t r, int32_t rope) const {
    return cos_sin_.as<float>().data() + static_cast<size_t>(r * num_ropes_ + rope) * static_cast<size_t>(head_dim_);
  }

  int32_t tile_tokens() const { return tile_tokens_; }
  int32_t num_tiles() const { return (rows_ + tile_tokens_ - 1) / tile_tokens_; }
  AttentionTile tile(int32_t kv_head, int32_t tile);
  // Where the query of head `in_group` of the group stands in its tile.
  int32_t tile_row(int32_t r, int32_t in_group) const { return r % tile_tokens_ * group_ + in_group; }
  void keep_last_row();

 private:
  const OpTable& ops_;
  size_t model_dim_;  // padded, as the head's
  int32_t head_dim_, group_, num_kv_heads_, num_ropes_;
  int32_t rows_, tile_tokens_;
  size_t tile_bytes_;
  AlignedBuffer x_;            // [rows, model_dim]
  AlignedBuffer cos_sin_;      // [rows, ropes, 2, head_dim / 2]
  AlignedBuffer tiles_;        // [num_kv_heads, tiles] of tile_bytes_
  std::vector<Place> places_;  // [rows]
};

}  // namespace runahead
