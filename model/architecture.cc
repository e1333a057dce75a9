#include "model/architecture.h"

#include <algorithm>
#include <string>

namespace runahead {
namespace {

constexpr RopePairing kHalves = RopePairing::kHalves;

// Each is held against llama.cpp (tests/e2e/test_architectures.py).
constexpr Architecture kArchitectures[] = {
    // Llama 1 to 3.3, Mistral, Mixtral, SmolLM2, TinyLlama, Yi, ...
    {.name = "llama", .experts = true, .windowed = WindowedLayers::kPeriod},
    {.name = "falcon", .norm = NormKind::kLayer, .rope_pairing = kHalves, .ffn = FfnKind::kGelu, .parallel = true},
    {.name = "gemma", .rope_pairing = kHalves, .ffn = FfnKind::kGeluGated, .scales_embedding = true},
    {.name = "gemma2",
     .rope_pairing = kHalves,
     .ffn = FfnKind::kGeluGated,
     .post_norms = true,
     .scales_embedding = true,
     .attention_soft_cap = 50,
     .logit_soft_cap = 30,
     .soft_caps = true,
     .windowed = WindowedLayers::kPeriod,
     .window = 4096,
     .window_period = 2,
     .narrow_scale_layers = 46},  // 27B
    {.name = "gemma3",
     .rope_pairing = kHalves,
     .ffn = FfnKind::kGeluGated,
     .qk_norm = QkNorm::kHead,
     .post_norms = true,
     .scales_embedding = true,
     .soft_caps = true,
     .windowed = WindowedLayers::kPeriod,
     .window_period = 6,
     .window_rope_base = 10000,
     .narrow_scale_layers = 62},  // 27B
    {.name = "granite", .multipliers = true},
    {.name = "olmo2",  // and 3, whose layers have windows
     .rope_pairing = kHalves,
     .qk_norm = QkNorm::kRow,
     .pre_norms = false,
     .post_norms = true,
     .windowed = WindowedLayers::kPeriod,
     .window_period = 4,
     .window_rope_unscaled = true},
    {.name = "phi3",  // and 4-mini
     .rope_pairing = kHalves,
     .fused_gate_up = true,
     .windowed = WindowedLayers::kIgnored,
     .long_rope = true},
    {.name = "qwen2", .rope_pairing = kHalves},
    {.name = "qwen3", .rope_pairing = kHalves, .qk_norm = QkNorm::kHead},
    {.name = "qwen3moe", .rope_pairing = kHalves, .qk_norm = QkNorm::kHead, .experts = true},
    {.name = "smollm3", .unrotated_period = 4},
    {.name = "stablelm",
     .norm = NormKind::kLayer,
     .rope_pairing = kHalves,
     .qk_norm = QkNorm::kOwnHead,
     .optional_norms = true},
    {.name = "starcoder2",
     .norm = NormKind::kLayer,
     .rope_pairing = kHalves,
     .ffn = FfnKind::kGelu,
     .windowed = WindowedLayers::kPeriod},  // of all layers
};

}  // namespace

std::vector<std::string_view> architecture_names() {
  std::vector<std::string_view> names;
  for (const Architecture& one : kArchitectures) names.push_back(one.name);
  return names;
}

Result<const Architecture*> find_architecture(std::string_view name) {
  const auto* found = std::ranges::find(kArchitectures, name, &Architecture::name);
  if (found != std::end(kArchitectures)) return found;
  std::string known;
  for (const std::string_view one : architecture_names()) known += (known.empty() ? "" : ", ") + std::string(one);
  return fail(ErrorCode::kUnsupported, "the model's architecture '" + std::string(name) +
                                           "' is not supported; choose a model of architecture " + known);
}

}  // namespace runahead
