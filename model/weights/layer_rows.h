// LayerRows: the rows of a layer's matrices, in the order in which a product wants them, whoever packs them: for the processor's
// kernels (weights.cc) or for a GPU's (model/cuda_transformer).
//   rows    of Q and K are reordered to rotate-half RoPE, whatever pairing the file has: place i of each half is pair i. Whole
//           rows move: lossless for every format.
//   owner   they point into the model file, which must stay open.
//   threads any.
#pragma once

#include <vector>

#include "kernels/packed_matrix.h"
#include "model/model_config.h"

namespace runahead {

using WeightRows = std::vector<RowSource>;

struct LayerRows {
  WeightRows qkv;  // heads of Q, then of K, then of V
  WeightRows attention_out, gate, up, down;
};

// Each head gets padded_head_dim rows, the halves that RoPE turns padded each; what is added is empty rows. kInvalidModel if a
// tensor is missing, of another shape, or holds weights that are no numbers.
Result<LayerRows> layer_rows(const Gguf& file, const ModelConfig& config, int32_t layer, int32_t padded_head_dim);

WeightRows rows_of(const QuantMatrixView& matrix);
Result<QuantMatrixView> embedding_matrix(const Gguf& file, const ModelShape& shape);
Result<QuantMatrixView> head_matrix(const Gguf& file, const ModelConfig& config);  // of the logits

}  // namespace runahead
