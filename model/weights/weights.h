// Weights: a model's matrices, packed once for the kernels, with what belongs together in one product: Q, K and V of a
// layer are one matrix, gate and up rows alternate in one panel (kernels/ops.h, is_gated).
//   rows    of Q and K are reordered to rotate-half RoPE (model/weights/layer_rows.h), so that K/V pages of one model are the
//           same whichever file they come from.
//   owner   the packed copies are owned here, or mapped from the machine's packed cache (model/weights/packed_cache.h);
//           `embedding` points into the model file, which must stay open.
//   threads constant after load.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/packed_matrix.h"
#include "kernels/thread_team.h"
#include "model/model_config.h"
#include "model/weights/layer_rows.h"
#include "model/weights/packed_cache.h"
#include "model/weights/padded_shape.h"

namespace runahead {

// Empty gains: there is no such norm.
struct NormWeights {
  std::vector<float> gain, bias;  // [model_dim]; bias: of LayerNorm, may be empty

  bool is_there() const { return !gain.empty(); }
};

// Lengths are those of PaddedShape. A bias is empty if its product has none.
struct LayerWeights {
  NormWeights attention_norm, attention_post_norm;
  NormWeights ffn_norm, ffn_post_norm;
  LayerVectors vectors;
  PackedMatrix qkv;  // [qkv_dim, model_dim]
  PackedMatrix attention_out;  // [model_dim, heads_dim]
  PackedMatrix ffn_in;  // gated: [2 ffn_dim, model_dim], 16 gate rows, then their 16 up rows; else [ffn_dim, model_dim]
  PackedMatrix down;  // [model_dim, ffn_dim]
};

enum class WeightsOrigin {
  kPacked,  // packed now, in this process's own memory
  kWritten,  // packed now into the cache file, and mapped from it
  kMapped,  // found in the cache
};

struct Weights {
  QuantMatrixView embedding;  // [vocab_size, model_dim], in the file, not padded
  std::vector<LayerWeights> layers;
  NormWeights output_norm;
  PackedMatrix head;  // [vocab_size, model_dim]

  WeightsOrigin origin = WeightsOrigin::kPacked;
  MappedFile cache;  // the matrices point into it unless origin is kPacked

  size_t packed_bytes() const;
};

// Called on any thread, one at a time, with the bytes of the file that are packed so far and in all.
using LoadProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

// kUnsupported if a head is too long for the kernels, kInvalidModel if a tensor is missing or of another shape. cache:
// nullptr for none; a cache that cannot be read or written costs a warning and the time to pack, never the start.
Result<Weights> load_weights(const Gguf& file, const ModelConfig& config, ThreadTeam& team,
                             const LoadProgress& progress, const PackedCache* cache = nullptr);

}  // namespace runahead
