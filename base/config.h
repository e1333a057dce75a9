// Configuration files and suggestions. A file is YAML: keys are the long flags without dashes; a section named after a
// command (`prefill:`) holds keys of that command only and wins over the top level.
//
//   model: smollm2
//   prefill: {threads: 2, transport: ucx}
//
// Order of precedence: flag > environment RUNAHEAD_<KEY> > section > top level > default (services/commands/command_line).
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

struct ConfigFile {
  struct Entry {
    std::vector<std::string> values;  // a list has several
    int line = 0;  // from 1
  };
  using Values = std::map<std::string, Entry>;
  Values top_level;
  std::map<std::string, Values> sections;
};

// kInvalidConfig with file and line for what is not YAML of this form; kNotFound if the file is missing.
Result<ConfigFile> read_config_file(const std::filesystem::path& path);

// The candidate nearest to `word` by edit distance, if it is near enough to be meant; else empty.
std::string suggestion(std::string_view word, std::span<const std::string> candidates);

// ", did you mean 'threads'?" or nothing.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace runahead
