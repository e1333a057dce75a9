// ModelConfig: what a model file says about its model, checked and complete: nobody else reads these keys.
// Architectures: `llama` (Llama 1 to 3, Mistral 7B, SmolLM2, TinyLlama, ...). Anything that we would compute wrongly
// (experts, biases, YaRN) is refused with kUnsupported and a sentence, never guessed (model/weights/unread_parts.h).
//   threads  plain data.
#pragma once

#include <vector>

#include "base/ids.h"
#include "model/engine.h"
#include "model/weights/gguf.h"

namespace runahead {

// Which two dimensions of a head RoPE turns together as pair i.
enum class RopePairing {
  kInterleaved,  // 2 i and 2 i + 1: `llama` in GGUF, whose converter permuted the rows of Q and K
  kHalves,       // i and i + head_dim / 2: Hugging Face's own order
};

struct RopeConfig {
  RopePairing pairing = RopePairing::kInterleaved;
  float base = 10000;
  // [head_dim / 2] radians a token: pair i of position p turns by p * frequencies[i]. Linear scaling and the file's
  // rope_freqs are already in them.
  std::vector<double> frequencies;
};

inline constexpr TokenId kNoToken = -1;

struct SpecialTokens {
  TokenId bos = kNoToken, eos = kNoToken, eot = kNoToken, eom = kNoToken;
  bool add_bos = false, add_eos = false;  // what the file asks a tokenizer to add around a text
};

struct ModelConfig {
  ModelShape shape;
  float norm_epsilon = 0;  // of RMSNorm
  bool tied_head = false;  // no output.weight: token_embd.weight makes the logits
  RopeConfig rope;
  SpecialTokens special;
};

// kUnsupported for another architecture or a feature we lack; kInvalidModel if keys or tensors contradict each other.
// Every key and tensor of the file is accounted for, but whether the layers' tensors are there says load_weights.
Result<ModelConfig> read_model_config(const Gguf& file);
// The tokenizer keys alone: for files without weights.
Result<SpecialTokens> read_special_tokens(const Gguf& file, int32_t vocab_size);

}  // namespace runahead
