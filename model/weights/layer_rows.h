// LayerRows: the rows of a layer's matrices, in the order in which a product wants them, whoever packs them: for the processor's
// kernels (weights.cc) or for a GPU's (model/cuda_transformer).
//   rows    of Q and K are reordered to rotate-half RoPE, whatever pairing the file has: place i of each half is pair i; what is
//           not turned comes behind the pairs that are. Whole rows move: lossless for every format.
//   owner   they point into the model file, which must stay open, or into `decoded`.
//   threads any.
#pragma once

#include <span>
#include <vector>

#include "kernels/packed_matrix.h"
#include "model/model_config.h"
#include "model/weights/decoded_matrix.h"

namespace runahead {

using WeightRows = std::vector<RowSource>;

struct FfnRows {
  WeightRows gate;  // empty if there is none
  WeightRows up, down;
};
struct LayerRows {
  WeightRows qkv;  // heads of Q, then of K, then of V
  WeightRows attention_out;
  WeightRows router;  // empty without experts
  std::vector<FfnRows> ffn;  // one, or one an expert
  DecodedBytes decoded;  // of matrices that a folder has in a form that is not packed
};

// Each head gets padded_head_dim rows, the halves that RoPE turns padded each; what is added is empty rows. kInvalidModel if a
// tensor is missing, of another shape, or holds weights that are no numbers.
Result<LayerRows> layer_rows(const Gguf& file, const ModelConfig& config, int32_t layer, int32_t padded_head_dim);

// What belongs to those rows, one number a row, padded likewise by zeros. Empty if the file has none.
struct LayerVectors {
  std::vector<float> qkv_bias;
  std::vector<float> attention_out_bias, up_bias, down_bias;
  std::vector<float> q_norm, k_norm;  // gains: of one head, or of all, as LayerConfig::qk_norm says
};
Result<LayerVectors> layer_vectors(const Gguf& file, const ModelConfig& config, int32_t layer, int32_t padded_head_dim);

WeightRows rows_of(const QuantMatrixView& matrix);
Result<QuantMatrixView> embedding_matrix(const Gguf& file, const ModelShape& shape);
Result<QuantMatrixView> head_matrix(const Gguf& file, const ModelConfig& config);  // of the logits

}  // namespace runahead
