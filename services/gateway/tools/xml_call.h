// A call as Qwen3-Coder writes it: <function=f> <parameter=x> value </parameter> ... </function>. Pure; any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "services/gateway/tools/tool_call_parser.h"

namespace runahead::xml_call {

inline constexpr std::string_view kBegin = "<function=", kEnd = "</function>";

// `text` is a beginning of kBegin.
inline bool may_begin(std::string_view text) { return kBegin.starts_with(text); }

// kEnd at the end of `text` is part of a value that is not closed.
bool in_value(std::string_view text);

struct Read {
  std::string name;
  std::string arguments;  // as JSON
};
// `text` begins with kBegin and ends with kEnd. A value is a string where its tool says so, else JSON if it is that.
std::optional<Read> parse(std::string_view text, std::span<const OfferedTool> tools);

}  // namespace runahead::xml_call
