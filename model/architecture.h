// What a decoder-only transformer computes, as data; its sizes are ModelShape's. model/model_config.cc makes it from a file's
// keys, model/weights/weights.cc loads what it needs, model/transformer/transformer_layer.cc walks it. A kind is here if
// the forward pass has it: a file that asks for another is refused by name.
// Architecture: what the name of one (general.architecture) settles, beside the file's keys. Plain data.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

enum class NormKind {
  kRms,  // x * gain / sqrt(mean(x^2) + epsilon)
  kLayer,  // (x - mean(x)) * gain / sqrt(variance(x) + epsilon) + bias
};

struct NormConfig {
  NormKind kind = NormKind::kRms;
  float epsilon = 0;
};

// Which two dimensions of a head RoPE turns together as pair i. Of `rotated` dimensions, the first ones; the others stay.
enum class RopePairing {
  kInterleaved,  // 2 i and 2 i + 1: `llama` in GGUF, whose converter permuted the rows of Q and K
  kHalves,  // i and i + rotated / 2: Hugging Face's own order
};

struct RopeConfig {
  float base = 10000;
  // [head_dim / 2] radians a token: pair i of position p turns by p * frequencies[i]. Scaling of any kind and the file's
  // divisors are already in them; 0 for a pair that does not turn.
  std::vector<double> frequencies;
  float magnitude = 1;  // of what is turned (YaRN, LongRoPE)
};

enum class FfnKind {
  kSiluGated,  // down(silu(gate(x)) * up(x))
  kGeluGated,  // down(gelu(gate(x)) * up(x)), GELU by its tanh formula, as llama.cpp's
  kGelu,  // down(gelu(up(x)))
};

// Whether queries and keys are normalised before they are turned, over what, and with whose gains.
enum class QkNorm {
  kNone,
  kHead,  // each head, all with the same gains
  kOwnHead,  // each head with gains of its own
  kRow,  // all heads of a token together
};

// Of all layers: x += scale * post(attention(norm(x))), then x += scale * post(ffn(norm(x))). Which norms there are and which
// products have biases the layer's weights say.
struct LayerConfig {
  NormConfig norm;  // of all
  RopePairing rope_pairing = RopePairing::kInterleaved;
  int32_t rotated = 0;  // dimensions of a head
  QkNorm qk_norm = QkNorm::kNone;
  float attention_scale = 0;  // of q . k
  float attention_soft_cap = 0;  // scores become cap * tanh(score / cap); 0: they stay
  FfnKind ffn = FfnKind::kSiluGated;
  bool pre_norms = true, post_norms = false;
  bool parallel = false;  // the FFN reads what the attention reads, not what it has made
  bool shared_norm = false;  // parallel, and normalised once for both
  bool fused_gate_up = false;  // one tensor: the rows of gate, then those of up
  float residual_scale = 1;
};

// What the layers of a file's attention.sliding_window are.
enum class WindowedLayers {
  kUnknown,  // the context ends with the window, within which it changes nothing
  kIgnored,  // as in llama.cpp, whose converter writes a key that its models do not follow
  kPeriod,  // all but every window_period-th; 0: all
};

struct Architecture {
  std::string_view name;  // and the prefix of its keys
  NormKind norm = NormKind::kRms;
  RopePairing rope_pairing = RopePairing::kInterleaved;
  FfnKind ffn = FfnKind::kSiluGated;
  QkNorm qk_norm = QkNorm::kNone;
  bool pre_norms = true, post_norms = false;
  bool parallel = false;
  bool optional_norms = false;  // files without those of Q and K have none; without the FFN's they are parallel
  bool fused_gate_up = false;
  bool scales_embedding = false;  // by sqrt(model_dim)
  bool multipliers = false;  // keys that scale the embedding, the residuals, the scores and the logits
  float attention_soft_cap = 0, logit_soft_cap = 0;  // unless the file says otherwise
  bool soft_caps = false;  // it has keys for them
  WindowedLayers windowed = WindowedLayers::kUnknown;
  int32_t window = 0;  // unless the file says otherwise
  int32_t window_period = 0;
  std::optional<float> window_rope_base = {};  // windowed layers turn by this base, unless the file says otherwise, unscaled
  bool window_rope_unscaled = false;  // windowed layers turn by the file's base, unscaled
  bool long_rope = false;  // rope_factors tensors count even if rope.scaling.type does not say so
  int32_t unrotated_period = 0;  // every so many-th layer turns nothing; 0: none
  int32_t narrow_scale_layers = 0;  // a model of so many layers scales scores by sqrt(num_heads / model_dim)
};

// kUnsupported with the list of those that we run.
Result<const Architecture*> find_architecture(std::string_view name);
// All of them, for documents and tests.
std::vector<std::string_view> architecture_names();

}  // namespace runahead
