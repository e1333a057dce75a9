#include "model/weights/layer_tensors.h"

#include <utility>

namespace runahead {
namespace {

// A norm or product of this name; its bias, if the file has one.
std::pair<std::string, std::string> named(const Gguf& file, const std::string& name) {
  std::string bias = name + ".bias";
  if (!file.has_tensor(bias)) bias.clear();
  return {name + ".weight", bias};
}

}  // namespace

LayerTensors::LayerTensors(const Gguf& file, const LayerConfig& config, int32_t layer) {
  const std::string block = "blk." + std::to_string(layer) + ".";
  const auto norm = [&](const char* part) {
    auto [gain, bias] = named(file, block + part);
    if (config.norm.kind == NormKind::kRms) bias.clear();
    return Norm{std::move(gain), std::move(bias)};
  };
  const auto product = [&](const char* part) {
    auto [weight, bias] = named(file, block + part);
    return Product{std::move(weight), std::move(bias)};
  };
  if (config.pre_norms) {
    const bool apart = config.parallel && !config.shared_norm;  // Falcon 40B, whose FFN has the first one
    attention_norm = norm(apart ? "attn_norm_2" : "attn_norm");
    ffn_norm = norm(config.parallel ? "attn_norm" : "ffn_norm");
  }
  if (config.post_norms) attention_post_norm = norm("post_attention_norm"), ffn_post_norm = norm("post_ffw_norm");
  if (config.qk_norm != QkNorm::kNone) q_norm = block + "attn_q_norm.weight", k_norm = block + "attn_k_norm.weight";
  if (file.has_tensor(block + "attn_qkv.weight")) qkv = product("attn_qkv");
  else q = product("attn_q"), k = product("attn_k"), v = product("attn_v");
  attention_out = product("attn_output");
  if (config.experts > 0) {
    router = block + "ffn_gate_inp.weight";
    const auto has_first = [&](const char* part) { return file.has_tensor(block + part + ".0.weight"); };
    const bool apart = has_first("ffn_gate") || has_first("ffn_up") || has_first("ffn_down");
    if (apart && !file.has_tensor(block + "ffn_gate_exps.weight")) {
      for (int32_t e = 0; e < config.experts; ++e) {
        const std::string ending = "." + std::to_string(e) + ".weight";
        experts.push_back({block + "ffn_gate" + ending, block + "ffn_up" + ending, block + "ffn_down" + ending});
      }
      return;
    }
    gate.weight = block + "ffn_gate_exps.weight", up.weight = block + "ffn_up_exps.weight";
    down.weight = block + "ffn_down_exps.weight";
    return;
  }
  up = product("ffn_up"), down = product("ffn_down");
  if (config.ffn == FfnKind::kGelu) return;
  up.bias.clear();  // a gated FFN has none that we compute
  if (!config.fused_gate_up) gate = product("ffn_gate"), gate.bias.clear();
}

std::vector<std::string> LayerTensors::all() const {
  std::vector<std::string> names = {q_norm, k_norm, router};
  for (const Norm& norm : {attention_norm, attention_post_norm, ffn_norm, ffn_post_norm})
    names.insert(names.end(), {norm.gain, norm.bias});
  for (const Product& product : {q, k, v, qkv, attention_out, gate, up, down})
    names.insert(names.end(), {product.weight, product.bias});
  for (const Expert& expert : experts) names.insert(names.end(), {expert.gate, expert.up, expert.down});
  std::erase(names, "");
  return names;
}

LayerTensors::Norm output_norm_tensors(const Gguf& file) {
  auto [gain, bias] = named(file, "output_norm");
  return {std::move(gain), std::move(bias)};
}

}  // namespace runahead
