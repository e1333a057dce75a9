// LayerConfig: what a layer computes, as data; its sizes are ModelShape's. model/model_config.cc makes it from a file's
// keys, model/weights/weights.cc loads what it needs, model/transformer/transformer_layer.cc walks it. A kind is here if
// the forward pass has it: a file that asks for another is refused by name.
// Architecture: what the name of one (general.architecture) settles, beside the file's keys. Plain data.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

enum class NormKind {
  kRms,  // x * gain / sqrt(mean(x^2) + epsilon)
};

struct NormConfig {
  NormKind kind = NormKind::kRms;
  float epsilon = 0;
};

// Which two dimensions of a head RoPE turns together as pair i.
enum class RopePairing {
  kInterleaved,  // 2 i and 2 i + 1: `llama` in GGUF, whose converter permuted the rows of Q and K
  kHalves,  // i and i + head_dim / 2: Hugging Face's own order
};

struct RopeConfig {
  RopePairing pairing = RopePairing::kInterleaved;
  float base = 10000;
  // [head_dim / 2] radians a token: pair i of position p turns by p * frequencies[i]. Linear scaling and the file's
  // rope_freqs are already in them.
  std::vector<double> frequencies;
};

enum class FfnKind {
  kSiluGated,  // down(silu(gate(x)) * up(x))
};

// x += attention(norm(x)), then x += ffn(norm(x)).
struct LayerConfig {
  NormConfig norm;  // of both
  RopeConfig rope;
  FfnKind ffn = FfnKind::kSiluGated;
};

struct Architecture {
  std::string_view name;  // and the prefix of its keys
  NormKind norm;
  RopePairing rope_pairing;
  FfnKind ffn;
};

// kUnsupported with the list of those that we run.
Result<const Architecture*> find_architecture(std::string_view name);

}  // namespace runahead
