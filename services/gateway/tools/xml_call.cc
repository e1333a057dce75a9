#include "services/gateway/tools/xml_call.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/limits.h"

namespace runahead::xml_call {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kParameter = "<parameter=", kParameterEnd = "</parameter>";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \n\t\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// One line end after the tag and one before the next are the form's, not the value's.
std::string_view value_of(std::string_view text) {
  if (text.starts_with('\n')) text.remove_prefix(1);
  if (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// A text that nests as deeply is no JSON for us: no request could bring it back.
bool nests_too_deeply(std::string_view text) {
  int depth = 0, deepest = 0;
  for (const char c : text) {
    if (c == '{' || c == '[') deepest = std::max(deepest, ++depth);
    if (c == '}' || c == ']') --depth;
  }
  return deepest >= limits::kJsonDepthMax;  // the arguments' object is around it
}

// Takes "<...=name>" off the text.
std::optional<std::string> take_name(std::string_view& text, std::string_view tag) {
  const size_t end = text.find('>');
  if (!text.starts_with(tag) || end == std::string_view::npos) return {};
  std::string name(trimmed(text.substr(tag.size(), end - tag.size())));
  text.remove_prefix(end + 1);
  return name;
}

// Takes a value and the tag behind it off the text, which has one. JSON may have such a tag in a string: then the first one
// with JSON before it ends the value, of the first few.
std::string take_value(std::string_view& text, bool is_bare) {
  constexpr int kTagsTried = 8;
  size_t end = text.find(kParameterEnd), next = end;
  for (int tried = 0; !is_bare && tried < kTagsTried && next != std::string_view::npos; ++tried) {
    if (ordered_json::accept(value_of(text.substr(0, next)))) {
      end = next;
      break;
    }
    next = text.find(kParameterEnd, next + 1);
  }
  std::string value(value_of(text.substr(0, end)));
  text.remove_prefix(end + kParameterEnd.size());
  return value;
}

}  // namespace

bool in_value(std::string_view text) {
  const size_t opened = text.rfind(kParameter), closed = text.rfind(kParameterEnd);
  return opened != std::string_view::npos && (closed == std::string_view::npos || closed < opened);
}

std::optional<Read> parse(std::string_view text, std::span<const OfferedTool> tools) {
  text.remove_suffix(kEnd.size());
  const auto name = take_name(text, kBegin);
  if (!name) return {};
  const auto tool = std::ranges::find(tools, *name, &OfferedTool::name);
  if (tool == tools.end()) return {};
  ordered_json arguments = ordered_json::object();
  for (text = trimmed(text); !text.empty(); text = trimmed(text)) {
    const auto field = take_name(text, kParameter);
    if (!field || text.find(kParameterEnd) == std::string_view::npos) return {};
    const bool is_bare = tool->text_fields.contains(*field);
    const std::string value = take_value(text, is_bare);
    const bool is_text = is_bare || nests_too_deeply(value) || !ordered_json::accept(value);
    arguments[*field] = is_text ? ordered_json(value) : ordered_json::parse(value);
  }
  return Read{*name, to_ordered_text(arguments)};
}

}  // namespace runahead::xml_call
