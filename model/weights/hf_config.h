// config.json of a folder of Hugging Face's, as the GGUF keys that it would have been converted to. Every member is accounted
// for: read, known to change no logits, or refused by name, as model/weights/unread_parts.h does with GGUF.
//   threads  pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"
#include "model/weights/gguf_keys.h"

namespace runahead {

// What a model_type settles; hf_tensors.cc has the names of its tensors.
struct HfFamily {
  std::string_view model_type;
  std::string_view architecture;  // model/architecture.cc's name
  bool tied = false;  // the embedding makes the logits, unless tie_word_embeddings says otherwise
  double rope_theta = 10000;  // likewise
  double rotated = 1;  // part of a head, likewise
  bool halves = false;  // GGUF has the rows of Q and K in another order: the pairing is told
  bool adds_one_to_gains = false;  // norms compute with 1 + weight, GGUF holds the sum
  std::string_view expert_ffn;  // the member with the length of an expert's FFN; empty: it has no experts
};

// What the tensors need to know.
struct HfModel {
  const HfFamily* family = nullptr;
  uint64_t num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  bool tied = false;
  bool float8 = false;  // some matrices are F8_E4M3 with scales
  bool grouped_qkv = false;  // Q, K and V of each K/V head together
  // What config.json says of tensors that GGUF's readers look for: of the first layer, and whether it is there.
  std::vector<std::pair<std::string, bool>> first_layer;
  std::vector<std::pair<std::string, std::vector<float>>> vectors;  // tensors that come of numbers in config.json
};

// Adds the architecture's keys. `name` is the file's, for messages.
Result<HfModel> read_hf_config(const nlohmann::json& config, const std::string& name, GgufKeys& keys);

}  // namespace runahead
