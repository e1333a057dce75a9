// The parts of a form with files (multipart/form-data: RFC 7578 in the frame of RFC 2046, 5.1). What is read twice in two ways
// by two parsers is refused: a part without a name, a name that comes twice, a coding of its own, a boundary within a line.
//   threads  pure; any.
//   owner    the contents are views into the body.
//   limits   kFormPartsMax parts, a header of kFormHeaderBytesMax each, a boundary of 70 characters (RFC 2046).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

inline constexpr size_t kFormPartsMax = 16;  // an upload has two
inline constexpr size_t kFormHeaderBytesMax = 4096;  // a name of a file in it has at most 1 KiB everywhere

struct FormPart {
  std::string name;
  std::optional<std::string> filename;  // it is a file
  std::string_view content;
};

// content_type: the header's value, with the boundary. kInvalidArgument.
Result<std::vector<FormPart>> parse_form(std::string_view content_type, std::string_view body);

}  // namespace runahead
