// What clients write behind the method, and in Origin, by the grammar of URLs (RFC 3986), which Boost.URL knows. It is strict;
// where clients and proxies are not, the bytes stay as they were sent, and match nothing. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

struct HttpTarget {
  std::string path;  // "/v1/models"; what is no path is the whole target, and begins with no slash
  std::string query;  // after '?', as sent
};

// In origin form or in absolute form (RFC 9112, 3.2), or "*". Every host is this one.
HttpTarget split_target(std::string_view target);

// "%2F" -> "/"; a text with a broken escape stays as it is.
std::string percent_decoded(std::string_view text);

struct QueryParam {
  std::string name, value;  // decoded; a plus sign is a plus sign
};

// kInvalidArgument if it is none.
Result<std::vector<QueryParam>> parse_query(std::string_view query);

// Decimal digits and nothing else, within the bounds.
std::optional<int64_t> whole_number(std::string_view text, int64_t min, int64_t max);

// As browsers send it in Origin: scheme, host and port alone.
bool is_origin(std::string_view text);

}  // namespace runahead
