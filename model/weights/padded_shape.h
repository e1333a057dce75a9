// PaddedShape: the lengths that the kernels see, which take blocks of 32: those of the model, rounded up. What is added
// is zero in weights, activations and K/V pages alike, so it changes no sum (docs/adr/0012-padded-shapes.md).
//   heads  of queries, keys and values are padded each, by rows of zeros in the weights; the halves that RoPE turns are
//          padded each. Behind the attention heads stand side by side again, for a quantised weight of the next product
//          can be of two heads.
#pragma once

#include <algorithm>

#include "kernels/packed_matrix.h"
#include "model/engine.h"

namespace runahead {

struct PaddedShape {
  explicit PaddedShape(const ModelShape& s)
      : model_dim(rounded_up(s.model_dim)),
        head_dim(rounded_up(s.head_dim)),
        ffn_dim(rounded_up(s.ffn_dim)),
        heads_dim(rounded_up(s.num_heads * s.head_dim)),
        qkv_dim((s.num_heads + 2 * s.num_kv_heads) * head_dim),
        mixed_stride(std::max(heads_dim, (s.num_heads - 1) * s.head_dim + head_dim)) {}

  int32_t model_dim, head_dim, ffn_dim;
  int32_t heads_dim;  // what the attention gives a row: all heads side by side
  int32_t qkv_dim;  // padded heads of Q, K and V
  int32_t mixed_stride;  // of rows of heads_dim, with room for the padding of the last head

 private:
  static int32_t rounded_up(int32_t n) { return (n + kPanelBlock - 1) / kPanelBlock * kPanelBlock; }
};

}  // namespace runahead
