#include "services/model_path.h"

#include <cstdlib>

namespace runahead {
namespace {

struct KnownModel {
  const char* name;
  const char* file;
};
constexpr KnownModel kKnownModels[] = {{"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"}};

std::filesystem::path home_cache() {
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home ? home : "/") / ".cache/runahead";
}

// deploy/setup.sh says the same.
std::filesystem::path model_folder() {
  if (const char* folder = std::getenv("RUNAHEAD_MODEL_DIR"); folder && *folder) return folder;
  return cache_folder() / "models";
}

}  // namespace

std::filesystem::path cache_folder() {
  if (const char* folder = std::getenv("RUNAHEAD_CACHE_DIR"); folder && *folder) return folder;
  return home_cache();
}

std::filesystem::path packed_cache_folder(const std::string& option) {
  if (option == "off") return {};
  return option.empty() ? cache_folder() / "packed" : std::filesystem::path(option);
}

Result<std::filesystem::path> find_model(const std::string& model) {
  for (const KnownModel& known : kKnownModels) {
    if (model != known.name) continue;
    const std::filesystem::path path = model_folder() / known.file;
    if (std::error_code error; !std::filesystem::exists(path, error))
      return fail(ErrorCode::kNotFound, "the model " + model + " is not in " + model_folder().string() +
                                            "; run deploy/quickstart.sh, which fetches it, or set RUNAHEAD_MODEL_DIR", "model");
    return path;
  }
  if (std::error_code error; !std::filesystem::exists(model, error))
    return fail(ErrorCode::kNotFound, "there is no model file " + model + "; give the path of a .gguf file or the name smollm2",
                "model");
  if (std::error_code error; !std::filesystem::is_regular_file(model, error))
    return fail(ErrorCode::kInvalidModel, model + " is not a file; give the path of a .gguf file", "model");
  return std::filesystem::path(model);
}

}  // namespace runahead
