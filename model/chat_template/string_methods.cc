#include <algorithm>
#include <charconv>

#include "model/chat_template/builtins.h"
#include "model/chat_template/characters.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {
namespace {

Value text_value(std::string_view text) { return Value::string(std::string(text)); }

Value text_list(const std::vector<std::string_view>& parts, Budget& budget) {
  List items;
  for (const std::string_view part : parts) {
    if (!budget.spend_bytes(part.size())) break;
    items.push_back(text_value(part));
  }
  return Value::list(std::move(items), budget);
}

// The separator of split and strip: absent or none is white space.
Result<std::optional<std::string>> optional_string(const Args& args, size_t index, std::string_view name) {
  const Value* value = args.find(index, name);
  if (!value || value->is_none()) return std::nullopt;
  return TRY(string_argument(args, index, name));
}

template <bool left, bool right>
Result<Value> strip_method(const Value& self, const Args& args, Budget& budget) {
  const auto chars = TRY(optional_string(args, 0, "chars"));
  budget.spend_bytes(self.as_string().size() * (chars ? 1 + chars->size() : 1));
  TRY(budget.check());
  return text_value(strip(self.as_string(), chars, left, right));
}

std::vector<std::string_view> split_space(std::string_view text, int64_t limit, Budget& budget) {
  std::vector<std::string_view> parts;
  budget.spend_bytes(text.size());
  text = strip(text, {}, true, false);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip(text, {}, false, true));
      break;
    }
    size_t end = 0;
    for (size_t pos = 0; pos < text.size() && !is_space(next_char(text, pos));) end = pos;
    parts.push_back(text.substr(0, end));
    text = strip(text.substr(end), {}, true, false);
  }
  return parts;
}

Result<Value> split(const Value& self, const Args& args, Budget& budget) {
  const auto separator = TRY(optional_string(args, 0, "sep"));
  const int64_t limit = TRY(int_argument(args, 1, "maxsplit", -1));
  const std::string_view text = self.as_string();
  if (!separator) return text_list(split_space(text, limit, budget), budget);
  if (separator->empty()) return type_error("empty separator");
  std::vector<std::string_view> parts;
  size_t pos = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t next = find_text(text, *separator, pos, budget);
    if (next == std::string_view::npos) break;
    parts.push_back(text.substr(pos, next - pos));
    pos = next + separator->size();
  }
  parts.push_back(text.substr(pos));
  return text_list(parts, budget);
}

Result<Value> rsplit(const Value& self, const Args& args, Budget& budget) {
  const auto separator = TRY(optional_string(args, 0, "sep"));
  const int64_t limit = TRY(int_argument(args, 1, "maxsplit", -1));
  if (limit < 0) return split(self, args, budget);
  if (!separator || separator->empty()) return type_error("rsplit with maxsplit needs a separator");
  std::string_view text = self.as_string();
  std::vector<std::string_view> parts;
  while (static_cast<int64_t>(parts.size()) < limit) {
    if (!budget.spend_bytes(text.size() * (1 + separator->size() / 64))) break;
    const size_t at = text.rfind(*separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(at + separator->size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return text_list(parts, budget);
}

Result<Value> splitlines(const Value& self, const Args& args, Budget& budget) {
  budget.spend(self.as_string().size());
  TRY(budget.check());
  return text_list(split_lines(self.as_string(), bool_argument(args, 0, "keepends", false)), budget);
}

// startswith and endswith take a string or a tuple of strings.
template <bool at_start>
Result<Value> affix(const Value& self, const Args& args, Budget& budget) {
  if (args.positional.size() != 1) return type_error("startswith and endswith take one argument");
  const Value& wanted = args.positional[0];
  const List one = {wanted};
  const bool tuple = wanted.is(Value::Kind::kList) && wanted.sequence() == Sequence::kTuple;
  for (const Value& part : tuple ? wanted.as_list() : one) {
    if (!part.is_string()) return type_error("startswith and endswith need a string or a tuple of strings");
    budget.spend_bytes(part.as_string().size());
    const std::string& text = self.as_string();
    if (at_start ? text.starts_with(part.as_string()) : text.ends_with(part.as_string())) return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool at_start>
Result<Value> remove_affix(const Value& self, const Args& args, Budget& budget) {
  const std::string part = TRY(string_argument(args, 0, at_start ? "prefix" : "suffix"));
  std::string_view text = self.as_string();
  budget.spend_bytes(text.size());
  if (at_start && text.starts_with(part)) text.remove_prefix(part.size());
  if (!at_start && text.ends_with(part)) text.remove_suffix(part.size());
  return text_value(text);
}

Result<Value> replace(const Value& self, const Args& args, Budget& budget) {
  const std::string from = TRY(string_argument(args, 0, "old"));
  const std::string to = TRY(string_argument(args, 1, "new"));
  return Value::string(replace_text(self.as_string(), from, to, TRY(int_argument(args, 2, "count", -1)), budget));
}

template <std::string (*convert)(std::string_view)>
Result<Value> convert_case(const Value& self, const Args&, Budget& budget) {
  budget.spend(self.as_string().size() / 4);  // a code point at a time
  TRY(budget.check());
  return Value::string(convert(self.as_string()));
}

template <bool last, bool required>
Result<Value> find(const Value& self, const Args& args, Budget& budget) {
  const std::string part = TRY(string_argument(args, 0, "sub"));
  const std::string& text = self.as_string();
  if (args.positional.size() > 1) return type_error("find takes one argument here");
  if (last) budget.spend_bytes(text.size() * (1 + part.size() / 64));
  TRY(budget.check());
  const size_t found = last ? text.rfind(part) : find_text(text, part, 0, budget);
  if (found == std::string::npos && required) return type_error("substring not found");
  budget.spend_bytes(text.size());
  const std::string_view before = std::string_view(text).substr(0, std::min(found, text.size()));
  return Value::integer(found == std::string::npos ? -1 : static_cast<int64_t>(count_chars(before)));
}

Result<Value> count(const Value& self, const Args& args, Budget& budget) {
  const std::string part = TRY(string_argument(args, 0, "sub"));
  if (part.empty()) return Value::integer(static_cast<int64_t>(count_chars(self.as_string())) + 1);
  int64_t found = 0;
  const std::string& text = self.as_string();
  for (size_t pos = 0; (pos = find_text(text, part, pos, budget)) != std::string::npos; pos += part.size()) {
    ++found;
  }
  return Value::integer(found);
}

Result<Value> join(const Value& self, const Args& args, Budget& budget) {
  if (args.positional.size() != 1) return type_error("join takes one argument");
  std::string out;
  bool first = true;
  for (const Value& item : TRY(iterate(args.positional[0], budget))) {
    if (!item.is_string()) return type_error("join needs strings, found " + std::string(item.type_name()));
    budget.spend_bytes(self.as_string().size() + item.as_string().size());
    TRY(budget.check());
    if (!first) out += self.as_string();
    out += item.as_string();
    first = false;
  }
  return Value::string(std::move(out));
}

template <bool last>
Result<Value> partition(const Value& self, const Args& args, Budget& budget) {
  const std::string separator = TRY(string_argument(args, 0, "sep"));
  if (separator.empty()) return type_error("empty separator");
  const std::string_view text = self.as_string();
  budget.spend_bytes(text.size() * (2 + separator.size() / 64));
  TRY(budget.check());
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  List parts;
  if (at == std::string_view::npos) {
    parts = last ? List{text_value(""), text_value(""), self} : List{self, text_value(""), text_value("")};
  } else {
    parts = {text_value(text.substr(0, at)), text_value(separator), text_value(text.substr(at + separator.size()))};
  }
  return Value::list(std::move(parts), budget, Sequence::kTuple);
}

// isdigit and friends: every character qualifies, and there is one.
template <bool (*accepts)(char32_t)>
Result<Value> all_chars(const Value& self, const Args&, Budget& budget) {
  const std::string& text = self.as_string();
  budget.spend_bytes(text.size());
  bool all = !text.empty();
  for (size_t pos = 0; all && pos < text.size();) all = accepts(next_char(text, pos));
  return Value::boolean(all);
}

template <bool (*has_case)(std::string_view)>
Result<Value> whole_case(const Value& self, const Args&, Budget& budget) {
  budget.spend(self.as_string().size() / 2);
  TRY(budget.check());
  return Value::boolean(has_case(self.as_string()));
}

// str.format with {}, {0} and {name}; attributes, conversions and format specifications are not built.
Result<Value> format(const Value& self, const Args& args, Budget& budget) {
  const std::string_view text = self.as_string();
  std::string out;
  size_t automatic = 0;  // the next {}
  for (size_t pos = 0; pos < text.size(); ++pos) {
    const char c = text[pos];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (pos + 1 < text.size() && text[pos + 1] == c) {
      out += c;
      ++pos;
      continue;
    }
    const size_t end = text.find('}', pos);
    if (c == '}' || end == std::string_view::npos) return type_error("a brace in a format string has no partner");
    const std::string_view field = text.substr(pos + 1, end - pos - 1);
    if (field.find_first_of(".[!:") != std::string_view::npos) {
      return fail(ErrorCode::kUnsupported, "the chat template uses a format specification, which is not supported");
    }
    size_t index = Args::kArgsMax;
    const auto parsed = std::from_chars(field.data(), field.data() + field.size(), index);
    if (field.empty()) index = automatic++;
    if (!field.empty() && parsed.ec != std::errc()) index = Args::kArgsMax;
    const Value* value = args.find(index, field);
    if (!value) return type_error("a field of a format string has no argument");
    append_str(out, *value, budget);
    TRY(budget.check());
    pos = end;
  }
  budget.spend_bytes(out.size());
  return Value::string(std::move(out));
}

}  // namespace

const Builtins& string_methods() {
  static const Builtins kMethods = {
      {"strip", strip_method<true, true>},
      {"lstrip", strip_method<true, false>},
      {"rstrip", strip_method<false, true>},
      {"split", split},
      {"rsplit", rsplit},
      {"splitlines", splitlines},
      {"startswith", affix<true>},
      {"endswith", affix<false>},
      {"removeprefix", remove_affix<true>},
      {"removesuffix", remove_affix<false>},
      {"replace", replace},
      {"upper", convert_case<to_upper>},
      {"lower", convert_case<to_lower>},
      {"casefold", convert_case<casefold>},
      {"title", convert_case<title>},
      {"capitalize", convert_case<capitalize>},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"count", count},
      {"join", join},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"isdigit", all_chars<is_digit>},
      {"isnumeric", all_chars<is_numeric>},
      {"isdecimal", all_chars<is_decimal>},
      {"isspace", all_chars<is_space>},
      {"isalpha", all_chars<is_alpha>},
      {"isalnum", all_chars<is_alnum>},
      {"isupper", whole_case<is_upper>},
      {"islower", whole_case<is_lower>},
      {"format", format},
  };
  return kMethods;
}

}  // namespace runahead::jinja
