#include "model/weights/layer_tensors.h"

namespace runahead {

LayerTensors::LayerTensors(const Gguf& file, int32_t layer) {
  const auto name = [layer](const char* part) { return "blk." + std::to_string(layer) + "." + part + ".weight"; };
  attention_norm = name("attn_norm"), ffn_norm = name("ffn_norm");
  if (file.has_tensor(name("attn_qkv"))) {
    qkv = name("attn_qkv");
  } else {
    q = name("attn_q"), k = name("attn_k"), v = name("attn_v");
  }
  attention_out = name("attn_output");
  gate = name("ffn_gate"), up = name("ffn_up"), down = name("ffn_down");
}

std::vector<std::string> LayerTensors::all() const {
  std::vector<std::string> names = {attention_norm, ffn_norm, attention_out, gate, up, down};
  if (qkv.empty()) names.insert(names.end(), {q, k, v});
  else names.push_back(qkv);
  return names;
}

}  // namespace runahead
