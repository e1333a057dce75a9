// What a layer computes for one block of rows, as its LayerConfig says (model/architecture.h): the half before the
// attention, and the half behind it.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/transformer/activations.h"
#include "model/transformer/transformer.h"

namespace runahead {
namespace {

constexpr float kLog2e = 1.44269504f;  // the softmax is computed with powers of two

void add_to(float* row, const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) row[i] += values[i];
}

Epilogue epilogue_of(FfnKind ffn) {
  switch (ffn) {
    case FfnKind::kSiluGated:
      return Epilogue::kSiluMul;
    case FfnKind::kGeluGated:
      return Epilogue::kGeluMul;
    case FfnKind::kGelu:
      return Epilogue::kStore;
  }
  RUNAHEAD_CHECK(false, "an FFN without a product");
}

}  // namespace

void Transformer::normalize(const NormConfig& norm, const NormArgs& args) const {
  switch (norm.kind) {
    case NormKind::kRms:
      return ops_.rms_norm(args);
    case NormKind::kLayer:
      return ops_.layer_norm(args);
  }
}

// Makes the block's rows of x, normalised, the operand rows of their product with `product`.
void Transformer::pack_normalized(Activations& x, const Block& block, const NormConfig& norm,
                                  const NormWeights& weights, const PackedMatrix& product) {
  float* row = scratch_[static_cast<size_t>(block.thread)].row.data();
  for (int32_t r = 0; r < block.rows(); ++r) {
    const float* own = x.row(block.begin + r);
    if (!weights.is_there()) {
      pack(block, r, own, product);
      continue;
    }
    normalize(norm, {.x = own,
                     .gain = weights.gain.data(),
                     .bias = weights.bias.empty() ? nullptr : weights.bias.data(),
                     .epsilon = norm.epsilon,
                     .count = shape().model_dim,
                     .padded = padded_.model_dim,
                     .out = row});
    pack(block, r, row, product);
  }
}

// x += scale * norm(operand rows of the block times product + bias).
void Transformer::add_product(Activations& x, const Block& block, const PackedMatrix& product,
                              const std::vector<float>& bias, const NormWeights& post_norm) {
  const auto model_dim = static_cast<size_t>(padded_.model_dim);
  const float scale = config_.layer.residual_scale;
  if (!post_norm.is_there() && scale == 1) {
    for (int32_t r = block.begin; r < block.end; ++r) add_to(x.row(r), bias);
    return multiply(block, product, Epilogue::kAdd, x.row(block.begin), model_dim);
  }
  float* sums = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, model_dim]
  multiply(block, product, Epilogue::kStore, sums, model_dim);
  for (int32_t r = 0; r < block.rows(); ++r) {
    float* sum = sums + static_cast<size_t>(r) * model_dim;
    add_to(sum, bias);
    if (post_norm.is_there())
      normalize(config_.layer.norm, {.x = sum,
                                     .gain = post_norm.gain.data(),
                                     .bias = post_norm.bias.empty() ? nullptr : post_norm.bias.data(),
                                     .epsilon = config_.layer.norm.epsilon,
                                     .count = shape().model_dim,
                                     .padded = padded_.model_dim,
                                     .out = sum});
    float* row = x.row(block.begin + r);
    for (size_t i = 0; i < model_dim; ++i) row[i] += scale * sum[i];
  }
}

float Transformer::soft_cap() const { return config_.layer.attention_soft_cap * kLog2e; }

// Heads of Q or of K of one row, as LayerConfig::qk_norm says.
void Transformer::normalize_heads(float* heads, int32_t count, const std::vector<float>& gains) const {
  const int32_t dim = padded_.head_dim, real = shape().head_dim;
  NormArgs args{.x = heads, .gain = gains.data(), .epsilon = config_.layer.norm.epsilon, .count = real, .padded = dim, .out = heads};
  if (config_.layer.qk_norm == QkNorm::kRow) {
    args.count = count * real, args.padded = count * dim;
    return normalize(config_.layer.norm, args);
  }
  for (int32_t h = 0; h < count; ++h, args.x += dim, args.out += dim) {
    normalize(config_.layer.norm, args);
    if (config_.layer.qk_norm == QkNorm::kOwnHead) args.gain += dim;
  }
}

void Transformer::project_block(int32_t layer, Activations& x, const Block& block) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  pack_normalized(x, block, config_.layer.norm, w.attention_norm, w.qkv);
  float* qkv = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, stride]
  const size_t stride = static_cast<size_t>(w.qkv.num_panels()) * kPanelOutputs;
  multiply(block, w.qkv, Epilogue::kStore, qkv, stride);
  for (int32_t r = 0; r < block.rows(); ++r) {
    float* row = qkv + static_cast<size_t>(r) * stride;
    add_to(row, w.vectors.qkv_bias);
    if (config_.layer.qk_norm != QkNorm::kNone) {
      normalize_heads(row, shape().num_heads, w.vectors.q_norm);
      normalize_heads(row + shape().num_heads * padded_.head_dim, shape().num_kv_heads, w.vectors.k_norm);
    }
    store_row(layer, x, block.begin + r, row);
  }
}

// One row's heads of Q go to its tile, those of K and V to its page.
void Transformer::store_row(int32_t layer, Activations& x, int32_t row, float* head) {
  const ModelShape& s = shape();
  const int32_t group = s.num_heads / s.num_kv_heads, dim = padded_.head_dim;
  const float scale = config_.layer.attention_scale * kLog2e;
  const float* cos_sin = x.cos_sin(row, config_.rope_of_layer[static_cast<size_t>(layer)]);
  const Activations::Place& place = x.places()[static_cast<size_t>(row)];
  const int32_t slot = place.position % kPageTokens;
  std::byte* page = place.kv->page(layer, place.position / kPageTokens).data();
  for (int32_t h = 0; h < s.num_heads; ++h, head += dim) {
    ops_.rotate(head, cos_sin, dim);
    if (compact_) compact_->spread(head);
    ops_.store_query(head, scale, x.tile(h / group, row / x.tile_tokens()), x.tile_row(row, h % group));
  }
  for (int32_t h = 0; h < s.num_kv_heads; ++h, head += dim) {
    ops_.rotate(head, cos_sin, dim);
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

void Transformer::finish_block(int32_t layer, Activations& x, const Block& block) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  if (config_.layer.parallel) {  // the FFN reads x as the attention did
    feed_forward(w, x, block);
    add_attention(w, x, block);
  } else {
    add_attention(w, x, block);
    feed_forward(w, x, block);
  }
}

void Transformer::add_attention(const LayerWeights& w, Activations& x, const Block& block) {
  float* mixed = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, mixed_stride]
  collect_heads(x, block, mixed);
  for (int32_t r = 0; r < block.rows(); ++r)
    pack(block, r, mixed + static_cast<size_t>(r) * static_cast<size_t>(padded_.mixed_stride), w.attention_out);
  add_product(x, block, w.attention_out, w.vectors.attention_out_bias, w.attention_post_norm);
}

void Transformer::feed_forward(const LayerWeights& w, Activations& x, const Block& block) {
  const auto ffn_dim = static_cast<size_t>(padded_.ffn_dim);
  float* inner = scratch_[static_cast<size_t>(block.thread)].floats.as<float>().data();  // [block rows, ffn_dim]
  pack_normalized(x, block, config_.layer.norm, w.ffn_norm, w.ffn_in);
  multiply(block, w.ffn_in, epilogue_of(config_.layer.ffn), inner, ffn_dim);
  for (int32_t r = 0; r < block.rows(); ++r) {
    float* row = inner + static_cast<size_t>(r) * ffn_dim;
    if (config_.layer.ffn == FfnKind::kGelu) {
      add_to(row, w.vectors.up_bias);
      ops_.gelu(row, padded_.ffn_dim);
    }
    pack(block, r, row, w.down);
  }
  add_product(x, block, w.down, w.vectors.down_bias, w.ffn_post_norm);
}

size_t Transformer::head_stride() const { return static_cast<size_t>(weights_.head.num_panels()) * kPanelOutputs; }

// out: [block rows, head_stride].
void Transformer::project_head(Activations& x, const Block& block, float* out) {
  pack_normalized(x, block, config_.output_norm, weights_.output_norm, weights_.head);
  multiply(block, weights_.head, Epilogue::kStore, out, head_stride());
  const auto stride = static_cast<int32_t>(head_stride());
  for (int32_t r = 0; r < block.rows(); ++r, out += stride) {
    if (config_.logit_scale != 1)
      for (int32_t i = 0; i < stride; ++i) out[i] *= config_.logit_scale;
    if (config_.logit_soft_cap > 0) ops_.soft_cap(out, config_.logit_soft_cap, stride);
  }
}

}  // namespace runahead
