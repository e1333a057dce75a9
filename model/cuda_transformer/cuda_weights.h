// CudaWeights: a model's matrices on a device, as bf16 rows that its products take as they are. They are uploaded as the file has
// them and dequantised there; the embedding stays as it is in the file.
//   memory  two bytes a weight, and one matrix of the file at a time besides.
//   threads constant after load.
#pragma once

#include <vector>

#include "model/cuda_transformer/device_memory.h"
#include "model/weights/layer_rows.h"
#include "model/weights/weights.h"

namespace runahead {

// [n, k] bf16, k rounded up to kCudaDepth with zeros.
struct CudaMatrix {
  DeviceArray<uint16_t> rows;
  int32_t n = 0, k = 0;
};
inline constexpr int32_t kCudaDepth = 32;
inline int32_t cuda_depth(int32_t k) { return (k + kCudaDepth - 1) / kCudaDepth * kCudaDepth; }

struct CudaLayer {
  DeviceArray<float> attention_norm, ffn_norm;  // [model_dim]
  CudaMatrix qkv;  // heads of Q, K and V: [(num_heads + 2 num_kv_heads) head_dim, model_dim]
  CudaMatrix attention_out;  // [model_dim, num_heads head_dim]
  CudaMatrix gate_up;  // [2 ffn_dim, model_dim], gate rows and up rows alternate
  CudaMatrix down;  // [model_dim, ffn_dim]
};

struct CudaWeights {
  QuantMatrixView embedding;  // in the file; its bytes are in embedding_bytes
  DeviceArray<uint8_t> embedding_bytes;
  std::vector<CudaLayer> layers;
  DeviceArray<float> output_norm;
  CudaMatrix head;  // [vocab_size, model_dim]
};

// kOverloaded with what is missing if the device's memory does not hold them; kInvalidModel as load_weights().
Result<CudaWeights> load_cuda_weights(const cuda::CudaOps& ops, const Gguf& file, const ModelConfig& config,
                                      const LoadProgress& progress);

}  // namespace runahead
