// A folder of Hugging Face's, opened as the GGUF file that it would have been converted to: config.json's values become keys
// (hf_config.h), tokenizer.json becomes tokenizer.* keys (hf_tokenizer.h), tensors get GGUF's names (hf_tensors.h) and stay where
// they lie, mapped. All else of Runahead sees a Gguf.
//   files    config.json; model.safetensors, or the shards that model.safetensors.index.json names; tokenizer.json,
//            tokenizer_config.json, chat_template.jinja and generation_config.json, if they are there. All count in bytes_hash().
//   trust    none: sizes are bounded before anything is parsed, an index says which file has which tensor, and both must agree.
#pragma once

#include <filesystem>
#include <vector>

#include "model/weights/gguf.h"

namespace runahead {

// As Gguf::open; messages name the file within the folder.
Result<Gguf> open_hf_folder(const std::filesystem::path& folder, std::vector<KvOverride> overrides);
// Whether Gguf::open would take the folder: it has a config.json.
bool is_hf_folder(const std::filesystem::path& folder);

}  // namespace runahead
