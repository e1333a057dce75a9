#include "services/model_path.h"

#include <pwd.h>
#include <unistd.h>

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
  if (home == nullptr || *home == '\0') {  // a service manager may give none
    const passwd* user = getpwuid(getuid());
    home = user != nullptr ? user->pw_dir : "/";
  }
  return std::filesystem::path(home) / ".cache/runahead";
}

std::filesystem::path model_directory() {
  if (const char* directory = std::getenv("RUNAHEAD_MODEL_DIR"); directory && *directory) return directory;
  return home_cache() / "models";
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
    const std::filesystem::path path = model_directory() / known.file;
    if (!std::filesystem::exists(path))
      return fail(ErrorCode::kNotFound, "the model " + model + " is not in " + model_directory().string() +
                                            "; run deploy/quickstart.sh, which fetches it, or set RUNAHEAD_MODEL_DIR", "model");
    return path;
  }
  for (const std::filesystem::path& path : {std::filesystem::path(model), model_directory() / model})
    if (std::error_code error; std::filesystem::is_regular_file(path, error)) return path;
  return fail(ErrorCode::kNotFound,
              "there is no model file " + model + ", neither here nor in " + model_directory().string() +
                  "; give the path of a .gguf file or the name smollm2",
              "model");
}

}  // namespace runahead
