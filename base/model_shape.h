// ModelShape: the sizes of a model, as its file says them. The engine computes with them, the planner predicts from them,
// the coordinator checks messages by them. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runahead {

struct ModelShape {
  std::string architecture;  // "llama"
  int32_t num_layers = 0;
  int32_t model_dim = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_dim = 0;
  int32_t ffn_matrices = 3;  // gate, up and down; 2: no gate
  int32_t vocab_size = 0;
  int32_t context_len = 0;  // tokens the model was made for
  // [num_layers] tokens that a token sees in a layer, its own included, the last ones; 0: all. Empty: all in every layer.
  std::vector<int32_t> windows = {};

  int32_t window(int32_t layer) const { return windows.empty() ? 0 : windows[static_cast<size_t>(layer)]; }
};

}  // namespace runahead
