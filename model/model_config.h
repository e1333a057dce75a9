// ModelConfig: what a model file says about its model, checked and complete: nobody else reads these keys.
// Architectures: model/architecture.h. Anything that we would compute wrongly is refused with kUnsupported and a sentence,
// never guessed (model/weights/unread_parts.h).
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
  std::vector<RopeConfig> ropes;
  bool long_rope = false;  // rope_factors_long.weight or rope_factors_short.weight is in them
  std::vector<int32_t> rope_of_layer;  // [num_layers] its index in `ropes`
  NormConfig output_norm;
  bool tied_head = false;  // no output.weight: token_embd.weight makes the logits
  float embedding_scale = 1;  // of a token's row
  float logit_scale = 1;  // of the logits
  float logit_soft_cap = 0;  // then they become cap * tanh(logit / cap); 0: they stay
  SpecialTokens special;
};

// kUnsupported for another architecture or a feature we lack; kInvalidModel if keys or tensors contradict each other.
// Every key and tensor of the file is accounted for, but whether the layers' tensors are there says load_weights.
Result<ModelConfig> read_model_config(const Gguf& file);
// The tokenizer keys alone: for files without weights.
Result<SpecialTokens> read_special_tokens(const Gguf& file, int32_t vocab_size);

}  // namespace runahead
