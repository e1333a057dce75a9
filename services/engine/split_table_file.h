// The file of `runahead plan search`: the table of cuts that it found, and every measurement it made, so that a search that was
// broken off goes on and a longer one begins with what is known. JSON, for people too; written whole and renamed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "planner/split_table.h"

namespace runahead {

struct SplitSearchFile {
  SplitTable table;  // may have no entries yet
  // Measured time to first token, by prompt length and cuts.
  std::map<std::pair<int32_t, std::vector<int32_t>>, double> measured;
};

std::filesystem::path default_split_table();  // split-table.json of the cache folder

std::string encode_split_search(const SplitSearchFile& file);
// kInvalidArgument with what is wrong.
Result<SplitSearchFile> parse_split_search(std::string_view text);

// kNotFound if there is no such file.
Result<SplitSearchFile> read_split_search(const std::filesystem::path& path);
Result<void> write_split_search(const std::filesystem::path& path, const SplitSearchFile& file);

// A table that a coordinator can serve by: read_split_search, and check_table.
Result<SplitTable> read_split_table(const std::filesystem::path& path);

}  // namespace runahead
