// KvOverride: a key of a GGUF file that the user sets, as llama.cpp's --override-kv KEY=TYPE:VALUE: TYPE is int, float, bool
// or str. For files that say something wrong or nothing at all; also keys that a file lacks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

struct KvOverride {
  std::string key;
  uint32_t type = 0;  // GGUF's number of the type
  std::vector<std::byte> value;  // as it would stand in the file

  bool operator==(const KvOverride&) const = default;
};

// Each text holds one override, or several separated by commas; sorted by key, of two for one key the later counts.
// kInvalidArgument says what is wrong with which text.
Result<std::vector<KvOverride>> parse_kv_overrides(const std::vector<std::string>& texts);

}  // namespace runahead
