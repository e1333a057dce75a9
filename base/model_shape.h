// ModelShape: the sizes of a model, as its file says them. The engine computes with them, the planner predicts from them,
// the coordinator checks messages by them. Plain data.
#pragma once

#include <cstdint>
#include <string>

namespace runahead {

struct ModelShape {
  std::string architecture;  // "llama"
  int32_t num_layers = 0;
  int32_t model_dim = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_dim = 0;
  int32_t vocab_size = 0;
  int32_t context_len = 0;  // tokens the model was made for
};

}  // namespace runahead
