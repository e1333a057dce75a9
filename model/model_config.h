// ModelConfig: what a model file says about its model, checked and complete: nobody else reads these keys.
// Architectures: model/architecture.h; `llama` is Llama 1 to 3, Mistral 7B, SmolLM2, TinyLlama, ... Anything that we would
// compute wrongly (experts, biases, YaRN) is refused with kUnsupported and a sentence, never guessed
// (model/weights/unread_parts.h).
//   threads  plain data.
#pragma once

#include "base/ids.h"
#include "model/architecture.h"
#include "model/engine.h"
#include "model/weights/gguf.h"

namespace runahead {

inline constexpr TokenId kNoToken = -1;

struct SpecialTokens {
  TokenId bos = kNoToken, eos = kNoToken, eot = kNoToken, eom = kNoToken;
  bool add_bos = false, add_eos = false;  // what the file asks a tokenizer to add around a text
};

struct ModelConfig {
  ModelShape shape;
  LayerConfig layer;  // of all layers
  NormConfig output_norm;
  bool tied_head = false;  // no output.weight: token_embd.weight makes the logits
  SpecialTokens special;
};

// kUnsupported for another architecture or a feature we lack; kInvalidModel if keys or tensors contradict each other.
// Every key and tensor of the file is accounted for, but whether the layers' tensors are there says load_weights.
Result<ModelConfig> read_model_config(const Gguf& file);
// The tokenizer keys alone: for files without weights.
Result<SpecialTokens> read_special_tokens(const Gguf& file, int32_t vocab_size);

}  // namespace runahead
