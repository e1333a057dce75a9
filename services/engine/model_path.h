// Where models lie: `model` is a short name, the path of a .gguf file or of a folder as Hugging Face's models come, or one
// below $RUNAHEAD_MODEL_DIR, default ~/.cache/runahead/models (deploy/quickstart.sh puts the default model there).
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "model/weights/gguf.h"
#include "services/engine/engine_flags.h"

namespace runahead {

// $RUNAHEAD_CACHE_DIR, default ~/.cache/runahead: what this machine may forget.
std::filesystem::path cache_folder();
// Of --packed-cache: a folder; empty takes <cache folder>/packed; "off" gives an empty path, no cache.
std::filesystem::path packed_cache_folder(const std::string& option);

// kNotFound with what to do.
Result<std::filesystem::path> find_model(const std::string& model);
// For people: a file's name without its ending, a folder's name with all that it has.
std::string model_name_of(const std::filesystem::path& model);
// The model's file, with what --override-kv sets (model/weights/kv_override.h).
Result<Gguf> open_model(const ModelFlags& flags);

}  // namespace runahead
