// GenerationDefaults: how requests are sampled that do not say it themselves. Three places can hold a model's own
// values: a flag, generation_config.json beside the model file (transformers, vLLM), the GGUF's general.sampling.* keys
// (llama.cpp). Field by field the first of them counts (docs/adr, generation defaults).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "model/weights/gguf.h"
#include "services/gateway/request/json_reader.h"

namespace runahead {

struct GenerationDefaults {
  std::optional<float> temperature = {};  // [0, 2]
  std::optional<int32_t> top_k = {};  // 0: off
  std::optional<float> top_p = {};  // (0, 1]
  std::optional<float> min_p = {};  // [0, 1]
  std::optional<float> repetition_penalty = {};  // (0, 2]
  std::optional<int32_t> max_tokens = {};  // of a chat that names none; 0: the rest of the context

  bool choose_sampling() const { return temperature || top_k || top_p || min_p; }
  void fall_back_to(const GenerationDefaults& other);  // for what is not set here
};

// temperature, top_k, top_p, min_p and repetition_penalty as a request or a configuration names them, each in its
// bounds.
GenerationDefaults take_sampling_choice(JsonReader& reader);
// The same where neither the request nor the model chooses any of the first four.
GenerationDefaults untold_sampling();

struct GenerationFlags {
  std::string defaults;  // a JSON object; "none": what the file and the model say does not count
  std::optional<int32_t> max_tokens;  // as GenerationDefaults
};

// An error names the source.
Result<GenerationDefaults> load_generation_defaults(const GenerationFlags& flags,
                                                    const std::filesystem::path& model_path, const Gguf& model);

}  // namespace runahead
