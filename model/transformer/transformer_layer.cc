// What a layer computes for one block of rows, as its LayerConfig says (model/architecture.h): the half before the
// attention, and the half behind it.
#include <algorithm>
#include <cmath>

#include "model/transformer/activations.h"
#include "model/transformer/transformer.h"

namespace runahead {

// Makes the block's rows of x, normalised, the operand rows of their product with `product`.
void Transformer::pack_normalized(Activations& x, const Block& block, const NormConfig& norm,
                                  const std::vector<float>& gain, const PackedMatrix& product) {
  float* row = scratch_[static_cast<size_t>(block.thread)].row.data();
  for (int32_t r = 0; r < block.rows(); ++r) {
    switch (norm.kind) {
      case NormKind::kRms:
        ops_.rms_norm(x.row(block.begin + r), gain.data(), norm.epsilon, shape().model_dim, row);
        break;
    }
    pack(block, r, row, product);
  }
}

void Transformer::project_block(const LayerWeights& w, int32_t layer, Activations& x, const Block& block) {
  const ModelShape& s = shape();
  pack_normalized(x, block, config_.layer.norm, w.attention_norm, w.qkv);
  float* qkv = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, stride]
  const size_t stride = static_cast<size_t>(w.qkv.num_panels()) * kPanelOutputs;
  multiply(block, w.qkv, Epilogue::kStore, qkv, stride);

  const int32_t group = s.num_heads / s.num_kv_heads, dim = padded_.head_dim;
  // log2(e): the softmax is computed with powers of two.
  const float scale = 1.44269504f / std::sqrt(static_cast<float>(s.head_dim));
  for (int32_t r = 0; r < block.rows(); ++r) {
    const int32_t row = block.begin + r;
    const Activations::Place& place = x.places()[static_cast<size_t>(row)];
    const int32_t slot = place.position % kPageTokens;
    std::byte* page = place.kv->page(layer, place.position / kPageTokens).data();
    float* head = qkv + static_cast<size_t>(r) * stride;
    for (int32_t h = 0; h < s.num_heads; ++h, head += dim) {
      ops_.rotate(head, x.cos_sin(row), dim);
      if (compact_) compact_->spread(head);
      ops_.store_query(head, scale, x.tile(h / group, row / x.tile_tokens()), x.tile_row(row, h % group));
    }
    for (int32_t h = 0; h < s.num_kv_heads; ++h, head += dim) {
      ops_.rotate(head, x.cos_sin(row), dim);
      if (!compact_) {
        ops_.store_key(head, dim, slot, page + layout_.key_offset(h));
        continue;
      }
      compact_->spread(head);
      compact_->store(head, slot, page + compact_->layout().key_offset(h));
    }
    for (int32_t h = 0; h < s.num_kv_heads; ++h, head += dim) {
      if (compact_) compact_->store(head, slot, page + compact_->layout().value_offset(h));
      else ops_.store_value(head, dim, slot, page + layout_.value_offset(h));
    }
  }
}

// The heads of the block's rows side by side: mixed [block rows, mixed_stride]. Head by head, because the rows of a
// tile share its cache lines; the next head overwrites the padding of the one before.
void Transformer::collect_heads(Activations& x, const Block& block, float* mixed) {
  const ModelShape& s = shape();
  const int32_t group = s.num_heads / s.num_kv_heads;
  const auto stride = static_cast<size_t>(padded_.mixed_stride);
  for (int32_t h = 0; h < s.num_heads; ++h)
    for (int32_t row = block.begin; row < block.end; ++row)
      ops_.finish_attention(x.tile(h / group, row / x.tile_tokens()), x.tile_row(row, h % group),
                            mixed + static_cast<size_t>(row - block.begin) * stride + h * s.head_dim);
  const int32_t heads_dim = s.num_heads * s.head_dim;
  for (int32_t r = 0; r < block.rows() && heads_dim < padded_.heads_dim; ++r)
    std::fill_n(mixed + static_cast<size_t>(r) * stride + heads_dim, padded_.heads_dim - heads_dim, 0.0f);
}

void Transformer::finish_block(const LayerWeights& w, Activations& x, const Block& block) {
  float* mixed = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, mixed_stride]
  collect_heads(x, block, mixed);
  for (int32_t r = 0; r < block.rows(); ++r)
    pack(block, r, mixed + static_cast<size_t>(r) * static_cast<size_t>(padded_.mixed_stride), w.attention_out);
  multiply(block, w.attention_out, Epilogue::kAdd, x.row(block.begin), static_cast<size_t>(padded_.model_dim));
  feed_forward(w, x, block);
}

void Transformer::feed_forward(const LayerWeights& w, Activations& x, const Block& block) {
  const auto ffn_dim = static_cast<size_t>(padded_.ffn_dim);
  float* inner = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, ffn_dim]
  switch (config_.layer.ffn) {
    case FfnKind::kSiluGated:
      pack_normalized(x, block, config_.layer.norm, w.ffn_norm, w.gate_up);
      multiply(block, w.gate_up, Epilogue::kSiluMul, inner, ffn_dim);
      break;
  }
  for (int32_t r = 0; r < block.rows(); ++r) pack(block, r, inner + static_cast<size_t>(r) * ffn_dim, w.down);
  multiply(block, w.down, Epilogue::kAdd, x.row(block.begin), static_cast<size_t>(padded_.model_dim));
}

size_t Transformer::head_stride() const { return static_cast<size_t>(weights_.head.num_panels()) * kPanelOutputs; }

// out: [block rows, head_stride].
void Transformer::project_head(Activations& x, const Block& block, float* out) {
  pack_normalized(x, block, config_.output_norm, weights_.output_norm, weights_.head);
  multiply(block, weights_.head, Epilogue::kStore, out, head_stride());
}

}  // namespace runahead
