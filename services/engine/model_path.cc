#include "services/engine/model_path.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "base/utf8.h"
#include "model/weights/hf_folder.h"

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

// deploy/setup.sh says the same.
std::filesystem::path model_folder() {
  if (const char* folder = std::getenv("RUNAHEAD_MODEL_DIR"); folder && *folder) return folder;
  return cache_folder() / "models";
}

std::unexpected<Error> missing(const std::string& message) { return fail(ErrorCode::kNotFound, message, "model"); }
std::unexpected<Error> wrong(const std::string& message) { return fail(ErrorCode::kInvalidModel, message, "model"); }

// What programs that download call a file until they have all of it.
constexpr std::string_view kUnfinished[] = {".part",     ".partial", ".incomplete", ".crdownload",
                                            ".download", ".tmp",     ".aria2",      ".!qB"};

std::string_view unfinished_ending(const std::string& name) {
  for (const std::string_view ending : kUnfinished)
    if (name.ends_with(ending)) return ending;
  return {};
}

// `org/name`, as Hugging Face names repositories.
bool is_repository(const std::string& model) {
  const size_t slash = model.find('/');
  const auto is_word = [](std::string_view part) {
    return !part.empty() && part[0] != '.' && part[0] != '~' && std::ranges::all_of(part, [](unsigned char c) {
      return std::isalnum(c) || c == '-' || c == '_' || c == '.';
    });
  };
  return slash != std::string::npos && is_word(std::string_view(model).substr(0, slash)) &&
         is_word(std::string_view(model).substr(slash + 1));
}

// A folder as Hugging Face's models come. With a .gguf file beside them it could be either: then the file must be named.
bool has_hf_model(const std::filesystem::path& folder) {
  if (!is_hf_folder(folder)) return false;
  bool weights = false;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".gguf") return false;
    if (entry.path().extension() == ".safetensors") weights = true;
  }
  return weights;
}

Result<void> check_folder(const std::string& model) {
  size_t count = 0;
  bool safetensors = false, pickled = false;
  std::string first;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(model, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors")) safetensors = true;
    if (name.starts_with("pytorch_model")) pickled = true;
    if (!name.ends_with(".gguf")) continue;
    if (first.empty() || name < first) first = name;
    ++count;
  }
  if (failed) return wrong(model + " is a folder that cannot be read: " + failed.message());
  if (count == 1)
    return wrong(model + " is a folder; give the file in it: " + (std::filesystem::path(model) / first).string());
  if (count > 1)
    return wrong(model + " is a folder; give one of its " + std::to_string(count) + " files, such as " +
                 (std::filesystem::path(model) / first).string());
  if (safetensors)
    return wrong(model +
                 " is a folder of safetensors without the config.json that says what they are; download that, too");
  if (pickled)
    return wrong(
        model +
        " is a folder of PyTorch's pickled weights, which are not read; choose one of safetensors, or a .gguf file");
  return wrong(
      model +
      " is a folder without a model; give the path of a .gguf file, or a folder with config.json and safetensors");
}

Result<void> check_absent(const std::string& model) {
  std::error_code ignored;
  if (model.find("://") != std::string::npos)
    return missing(model + " is an address; download the file and give its path");
  if (std::filesystem::is_symlink(model, ignored))
    return missing(model + " is a link to " + std::filesystem::read_symlink(model, ignored).string() +
                   ", which is not there; download the file again");
  for (const std::string_view ending : kUnfinished)
    if (const std::string begun = model + std::string(ending); std::filesystem::exists(begun, ignored))
      return missing("there is only " + begun + ": the download of " + model + " has not ended");
  if (model.starts_with("~/"))
    return missing("there is no file " + model +
                   ": the shell has not put your home in place of ~; write $HOME instead");
  if (is_repository(model) && !model.ends_with(".gguf"))
    return missing("there is no file " + model + "; if it is a repository of Hugging Face, download it (hf download " +
                   model + " prints its folder) and give that folder, or one of its .gguf files");
  return missing("there is no model file " + model + "; give the path of a .gguf file or the name smollm2");
}

// What people name in place of a model file, each said as what it is.
Result<void> check_path(const std::string& model) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(model, ignored);
  if (!std::filesystem::exists(status)) return check_absent(model);
  if (std::filesystem::is_directory(status)) return check_folder(model);
  if (const std::string_view ending = unfinished_ending(model); !ending.empty())
    return wrong(model + " is an unfinished download (" + std::string(ending) +
                 "); let it end, and give the finished file");
  if (std::filesystem::is_regular_file(status) && std::filesystem::file_size(model, ignored) == 0)
    return wrong(model + " is empty (0 bytes): its download failed, or the disk was full; download it again");
  return {};
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
    std::filesystem::path path = model_folder() / known.file;
    if (std::error_code error; !std::filesystem::exists(path, error))
      return fail(ErrorCode::kNotFound,
                  "the model " + model + " is not in " + model_folder().string() +
                      "; run deploy/quickstart.sh, which fetches it, or set RUNAHEAD_MODEL_DIR",
                  "model");
    return path;
  }
  std::error_code error;
  if (std::filesystem::path stored = model_folder() / model;
      !model.empty() && !std::filesystem::exists(model, error) &&
      (std::filesystem::is_regular_file(stored, error) || has_hf_model(stored)))
    return stored;
  if (has_hf_model(model)) return std::filesystem::path(model);
  TRY(check_path(model));
  if (!std::filesystem::is_regular_file(model, error))
    return fail(ErrorCode::kInvalidModel, model + " is no file or folder of a model; give the path of a .gguf file",
                "model");
  return std::filesystem::path(model);
}

std::string model_name_of(const std::filesystem::path& model) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(model, ignored)) return valid_utf8(model.stem().string());
  const std::filesystem::path whole = std::filesystem::absolute(model, ignored).lexically_normal();
  return valid_utf8((whole.has_filename() ? whole : whole.parent_path()).filename().string());
}

Result<Gguf> open_model(const ModelFlags& flags) {
  std::vector<KvOverride> overrides = TRY(parse_kv_overrides(flags.override_kv));
  return Gguf::open(TRY(find_model(flags.name)), std::move(overrides));
}

}  // namespace runahead
