#include "model/transformer/activations.h"

#include <algorithm>
#include <cmath>

namespace runahead {

Activations::Activations(const ModelConfig& config, const OpTable& ops, int32_t rows, int32_t tile_tokens)
    : ops_(ops),
      model_dim_(static_cast<size_t>(PaddedShape(config.shape).model_dim)),
      head_dim_(PaddedShape(config.shape).head_dim),
      group_(config.shape.num_heads / config.shape.num_kv_heads),
      num_kv_heads_(config.shape.num_kv_heads),
      num_ropes_(static_cast<int32_t>(config.ropes.size())),
      rows_(rows),
      tile_tokens_(tile_tokens),
      tile_bytes_(ops.attention_tile_bytes(std::min(rows, tile_tokens) * group_, head_dim_)),
      places_(static_cast<size_t>(rows)) {
  const auto tokens = static_cast<size_t>(rows);
  x_ = AlignedBuffer(tokens * model_dim_ * sizeof(float));
  cos_sin_ = AlignedBuffer(tokens * static_cast<size_t>(num_ropes_ * head_dim_) * sizeof(float));
  tiles_ = AlignedBuffer(static_cast<size_t>(num_kv_heads_ * num_tiles()) * tile_bytes_);
}

void Activations::place(int32_t r, Place place, const std::vector<RopeConfig>& ropes) {
  places_[static_cast<size_t>(r)] = place;
  const auto half = static_cast<size_t>(head_dim_ / 2);
  float* angles = cos_sin_.as<float>().data() + static_cast<size_t>(r * num_ropes_) * 2 * half;
  for (const RopeConfig& rope : ropes) {
    for (size_t i = 0; i < rope.frequencies.size(); ++i) {
      const bool turns = rope.frequencies[i] > 0;
      const double angle = place.position * rope.frequencies[i];
      angles[i] = turns ? static_cast<float>(std::cos(angle)) * rope.magnitude : 1.0f;
      angles[half + i] = turns ? static_cast<float>(std::sin(angle)) * rope.magnitude : 0.0f;
    }
    angles += 2 * half;
  }
}

AttentionTile Activations::tile(int32_t kv_head, int32_t tile) {
  return {.data = tiles_.data() + static_cast<size_t>(kv_head * num_tiles() + tile) * tile_bytes_,
          .rows = std::min(tile_tokens_, rows_ - tile * tile_tokens_) * group_,
          .group = group_,
          .head_dim = head_dim_};
}

void Activations::keep_last_row() {
  const int32_t last = rows_ - 1, last_tile = last / tile_tokens_;
  const size_t tile_bytes = ops_.attention_tile_bytes(group_, head_dim_);
  AlignedBuffer tiles(static_cast<size_t>(num_kv_heads_) * tile_bytes);
  for (int32_t h = 0; h < num_kv_heads_; ++h) {
    const AttentionTile to{tiles.data() + static_cast<size_t>(h) * tile_bytes, group_, group_, head_dim_};
    for (int32_t g = 0; g < group_; ++g) ops_.copy_query(tile(h, last_tile), tile_row(last, g), to, g);
  }
  std::copy_n(row(last), model_dim_, row(0));
  std::copy_n(cos_sin(last, 0), num_ropes_ * head_dim_, cos_sin_.as<float>().data());
  places_ = {places_.back()};
  tiles_ = std::move(tiles);
  tile_bytes_ = tile_bytes;
  rows_ = tile_tokens_ = 1;
}

}  // namespace runahead
