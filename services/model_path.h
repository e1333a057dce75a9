// Where models lie: `model` is a path, or a short name that is looked for in $RUNAHEAD_MODEL_DIR, default
// ~/.cache/runahead/models (deploy/quickstart.sh puts it there).
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace runahead {

// kNotFound with what to do.
Result<std::filesystem::path> find_model(const std::string& model);

}  // namespace runahead
