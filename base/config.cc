#include "base/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <numeric>

namespace runahead {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitution});
    }
  }
  return row[b.size()];
}

std::string place(const std::filesystem::path& path, const YAML::Mark& mark) {
  return path.string() + ":" + std::to_string(mark.line + 1);
}

Result<ConfigFile::Entry> entry_of(const std::filesystem::path& path, const YAML::Node& key, const YAML::Node& node) {
  ConfigFile::Entry entry{.values = {}, .line = key.Mark().line + 1};
  std::vector<std::string>& values = entry.values;
  if (node.IsScalar()) {
    values.push_back(node.Scalar());
  } else if (node.IsSequence()) {
    for (const auto& item : node) {
      if (!item.IsScalar())
        return fail(ErrorCode::kInvalidConfig, place(path, item.Mark()) + ": a list may hold plain values only");
      values.push_back(item.Scalar());
    }
  } else if (!node.IsNull()) {
    return fail(ErrorCode::kInvalidConfig, place(path, node.Mark()) + ": a value or a list of values is expected here");
  }
  return entry;
}

Result<ConfigFile> from_yaml(const std::filesystem::path& path, const YAML::Node& root) {
  ConfigFile file;
  if (root.IsNull()) return file;
  if (!root.IsMap()) return fail(ErrorCode::kInvalidConfig, path.string() + ": the file must hold `key: value` lines");
  for (const auto& entry : root) {
    const std::string key = entry.first.as<std::string>();
    if (entry.second.IsMap()) {
      for (const auto& inner : entry.second)
        file.sections[key][inner.first.as<std::string>()] = TRY(entry_of(path, inner.first, inner.second));
    } else {
      file.top_level[key] = TRY(entry_of(path, entry.first, entry.second));
    }
  }
  return file;
}

}  // namespace

Result<ConfigFile> read_config_file(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    return fail(ErrorCode::kNotFound, "there is no configuration file " + path.string(), "config");
  try {
    return from_yaml(path, YAML::LoadFile(path.string()));
  } catch (const YAML::Exception& error) {
    return fail(ErrorCode::kInvalidConfig, place(path, error.mark) + ": " + error.msg, "config");
  }
}

std::string suggestion(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> candidates) {
  const std::string near = suggestion(word, candidates);
  return near.empty() ? "" : ", did you mean '" + near + "'?";
}

}  // namespace runahead
