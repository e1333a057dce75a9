#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "model/chat_template/builtins.h"
#include "model/chat_template/json.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

namespace {

using Kind = Value::Kind;
using Filter = Result<Value> (*)(const Value& input, const Args& args, Budget& budget);

// ---- text ----

template <std::string (*convert)(std::string_view)>
Result<Value> convert_case(const Value& input, const Args&, Budget& budget) {
  const std::string text = to_str(input, budget);
  budget.spend(text.size() / 4);  // a code point at a time
  TRY(budget.check());
  return Value::string(convert(text));
}

// jinja2's title: words begin at white space, -, (, {, [ and <.
std::string title_words(std::string_view text) {
  std::string out;
  size_t start = 0;
  const auto add_word = [&](size_t end) { out += capitalize(text.substr(start, end - start)); };
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = next_char(text, pos);
    if (!is_space(c) && c != '-' && c != '(' && c != '{' && c != '[' && c != '<') continue;
    add_word(at);
    append_char(out, c);
    start = pos;
  }
  add_word(text.size());
  return out;
}

Result<Value> trim(const Value& input, const Args& args, Budget& budget) {
  const Value* chars = args.find(0, "chars");
  const std::string text = to_str(input, budget);
  if (!chars || chars->is_none()) return Value::string(std::string(strip(text, {}, true, true)));
  const std::string set = TRY(string_argument(args, 0, "chars"));
  budget.spend_bytes(text.size() * (1 + set.size()));
  TRY(budget.check());
  return Value::string(std::string(strip(text, set, true, true)));
}

Result<Value> string(const Value& input, const Args&, Budget& budget) {
  return input.is_string() ? input : Value::string(to_str(input, budget));
}

Result<Value> safe(const Value& input, const Args& args, Budget& budget) { return string(input, args, budget); }

Result<Value> escape(const Value& input, const Args&, Budget& budget) {
  const std::string text = to_str(input, budget);
  budget.spend_bytes(text.size() * 5);  // &#34; is the longest
  TRY(budget.check());
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return Value::string(std::move(out));
}

Result<Value> replace(const Value& input, const Args& args, Budget& budget) {
  const std::string text = to_str(input, budget);
  const std::string from = TRY(string_argument(args, 0, "old"));
  const std::string to = TRY(string_argument(args, 1, "new"));
  const Value* count = args.find(2, "count");
  const int64_t limit = count && !count->is_none() ? TRY(int_argument(args, 2, "count")) : -1;
  return Value::string(replace_text(text, from, to, limit, budget));
}

Result<std::string> white_space(const Value& width, Budget& budget) {
  if (width.is_string()) return width.as_string();
  if (!width.is_integral()) return type_error("a width must be a string or an integer");
  const int64_t spaces = std::max<int64_t>(width.as_int(), 0);
  budget.spend_bytes(spaces);
  TRY(budget.check());
  return std::string(spaces, ' ');
}

Result<Value> indent(const Value& input, const Args& args, Budget& budget) {
  const Value* width = args.find(0, "width");
  const std::string margin = TRY(white_space(width ? *width : Value::integer(4), budget));
  const bool first = bool_argument(args, 1, "first", false);
  const bool blank = bool_argument(args, 2, "blank", false);
  const std::string text = to_str(input, budget) + "\n";
  budget.spend(text.size());
  std::string out = first ? margin : "";
  const char* newline = "";
  for (const std::string_view line : split_lines(text)) {
    if (!budget.spend_bytes(margin.size() + line.size())) break;
    if (*newline && (blank || !line.empty())) {
      out.append(newline).append(margin).append(line);
    } else {
      out.append(newline).append(line);
    }
    newline = "\n";
  }
  return Value::string(std::move(out));
}

Result<Value> center(const Value& input, const Args& args, Budget& budget) {
  const std::string text = to_str(input, budget);
  const int64_t width = TRY(int_argument(args, 0, "width", 80));
  const int64_t missing = width - static_cast<int64_t>(count_chars(text));
  if (missing <= 0) return Value::string(text);
  const int64_t left = missing / 2 + (missing & width & 1);  // CPython's rounding
  const std::string before = TRY(white_space(Value::integer(left), budget));
  return Value::string(before + text + TRY(white_space(Value::integer(missing - left), budget)));
}

Result<Value> tojson(const Value& input, const Args& args, Budget& budget) {
  JsonStyle style;
  style.ensure_ascii = bool_argument(args, 0, "ensure_ascii", false);
  if (const Value* width = args.find(1, "indent"); width && !width->is_none()) {
    style.indent = TRY(white_space(*width, budget));
    style.item_separator = ",";
  }
  if (const Value* separators = args.find(2, "separators"); separators && !separators->is_none()) {
    const List pair = TRY(iterate(*separators, budget));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return type_error("separators must be two strings");
    }
    style.item_separator = pair[0].as_string();
    style.key_separator = pair[1].as_string();
  }
  style.sort_keys = bool_argument(args, 3, "sort_keys", false);
  return Value::string(TRY(to_json(input, style, budget)));
}

Result<Value> wordcount(const Value& input, const Args&, Budget& budget) {
  const std::string text = to_str(input, budget);
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    const bool word = is_alpha(c) || (c >= '0' && c <= '9') || c == '_';
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

// ---- numbers ----

Result<Value> absolute(const Value& input, const Args&, Budget&) {
  if (!input.is_number()) return type_error("abs needs a number, found " + std::string(input.type_name()));
  if (input.is(Kind::kFloat)) return Value::real(std::abs(input.as_double()));
  return input.as_int() < 0 ? negate(input) : Result<Value>(Value::integer(input.as_int()));
}

std::optional<double> parse_float(const std::string& text) {
  std::string trimmed(strip(text, {}, true, true));
  std::erase(trimmed, '_');
  const char* first = trimmed.data() + (trimmed.starts_with('+') ? 1 : 0);
  double value = 0;
  const auto parsed = std::from_chars(first, trimmed.data() + trimmed.size(), value);
  if (trimmed.empty() || parsed.ec != std::errc() || parsed.ptr != trimmed.data() + trimmed.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_int(const std::string& text, int base) {
  std::string trimmed(strip(text, {}, true, true));
  std::erase(trimmed, '_');
  const bool negative = trimmed.starts_with('-');
  std::string_view digits = std::string_view(trimmed).substr(negative || trimmed.starts_with('+') ? 1 : 0);
  const std::string_view prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : " ";
  if (digits.starts_with(prefix)) digits.remove_prefix(2);
  uint64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

Result<Value> integer(const Value& input, const Args& args, Budget&) {
  const Value* fallback = args.find(0, "default");
  const int64_t base = TRY(int_argument(args, 1, "base", 10));
  if (base < 2 || base > 36) return type_error("int: the base must be 2 to 36");
  if (input.is_integral()) return Value::integer(input.as_int());
  std::optional<double> real;
  if (input.is(Kind::kFloat)) real = input.as_double();
  if (input.is_string()) {
    if (const auto value = parse_int(input.as_string(), static_cast<int>(base))) return Value::integer(*value);
    real = parse_float(input.as_string());
  }
  if (real && std::abs(*real) < 9.2e18) return Value::integer(static_cast<int64_t>(*real));  // 2^63 is 9.22e18
  return fallback ? *fallback : Value::integer(0);
}

Result<Value> real(const Value& input, const Args& args, Budget&) {
  if (input.is_number()) return Value::real(input.as_double());
  if (input.is_string()) {
    if (const auto value = parse_float(input.as_string())) return Value::real(*value);
  }
  const Value* fallback = args.find(0, "default");
  return fallback ? *fallback : Value::real(0);
}

Result<Value> round(const Value& input, const Args& args, Budget&) {
  const int64_t precision = TRY(int_argument(args, 0, "precision", 0));
  const std::string method = TRY(string_argument(args, 1, "method", "common"));
  if (!input.is_number()) return type_error("round needs a number, found " + std::string(input.type_name()));
  if (precision < 0 || precision > 30) return type_error("round: the precision must be 0 to 30");
  if (method == "common") {
    if (input.is_integral()) return Value::integer(input.as_int());
    char text[400];  // 309 digits before the point, 30 behind it
    std::snprintf(text, sizeof(text), "%.*f", static_cast<int>(precision), input.as_double());
    return Value::real(std::strtod(text, nullptr));
  }
  if (method != "ceil" && method != "floor") return type_error("round: the method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.as_double() * scale;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

// ---- sequences ----

Result<Value> length(const Value& input, const Args&, Budget& budget) {
  switch (input.kind()) {
    case Kind::kUndefined:
      return Value::integer(0);
    case Kind::kString:
      budget.spend_bytes(input.as_string().size());
      return Value::integer(static_cast<int64_t>(count_chars(input.as_string())));
    case Kind::kDict:
      return Value::integer(static_cast<int64_t>(input.as_dict().entries().size()));
    case Kind::kList:
      if (input.sequence() != Sequence::kLazy) return Value::integer(static_cast<int64_t>(input.as_list().size()));
      [[fallthrough]];
    default:
      return type_error("object of type '" + std::string(input.type_name()) + "' has no len()");
  }
}

// The value at a dotted path such as "function.name" or at an index; null `path` is the value itself.
Result<Value> at_path(const Value& value, const Value* path, const Value* fallback, Budget& budget) {
  if (!path || path->is_none()) return value;
  if (!path->is_string()) return item(value, *path, budget);
  Value current = value;
  std::string_view rest = path->as_string();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    const auto index = parse_int(part, 10);
    current = TRY(item(current, index ? Value::integer(*index) : Value::string(part), budget));
    if (current.is_undefined() && fallback) current = *fallback;
    if (dot == std::string_view::npos) return current;
    rest.remove_prefix(dot + 1);
  }
}

Result<Value> join(const Value& input, const Args& args, Budget& budget) {
  const Value* given = args.find(0, "d");
  const std::string separator = given ? to_str(*given, budget) : "";
  const Value* path = args.find(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& element : TRY(iterate(input, budget))) {
    budget.spend_bytes(separator.size());
    TRY(budget.check());
    if (!first) out += separator;
    append_str(out, TRY(at_path(element, path, nullptr, budget)), budget);
    first = false;
  }
  return Value::string(std::move(out));
}

template <bool at_end>
Result<Value> edge(const Value& input, const Args&, Budget& budget) {
  const List items = TRY(iterate(input, budget));
  if (items.empty()) return Value::undefined("the sequence is empty");
  return at_end ? items.back() : items.front();
}

Result<Value> list(const Value& input, const Args&, Budget& budget) {
  return Value::list(TRY(iterate(input, budget)), budget);
}

Result<Value> reverse(const Value& input, const Args&, Budget& budget) {
  List items = TRY(iterate(input, budget));
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return Value::list(std::move(items), budget, Sequence::kLazy);
  std::string out;
  for (const Value& character : items) out += character.as_string();
  return Value::string(std::move(out));
}

Result<Value> items(const Value& input, const Args&, Budget& budget) {
  if (input.is_undefined()) return Value::list({}, budget, Sequence::kLazy);
  if (!input.is(Kind::kDict)) return type_error("items needs a mapping, found " + std::string(input.type_name()));
  List pairs;
  budget.spend(input.as_dict().entries().size());
  TRY(budget.check());
  for (const auto& [key, value] : input.as_dict().entries()) {
    pairs.push_back(Value::list({key, value}, budget, Sequence::kTuple));
  }
  return Value::list(std::move(pairs), budget, Sequence::kLazy);
}

// What values are compared by: strings without their case, unless asked for.
Value sort_key(const Value& value, bool case_sensitive, Budget& budget) {
  if (case_sensitive || !value.is_string()) return value;
  budget.spend(value.as_string().size() / 4);
  return budget.broken() ? value : Value::string(to_lower(value.as_string()));
}

using Keyed = std::pair<Value, Value>;  // key, value

Result<std::vector<Keyed>> keyed(const Value& input, const Value* path, bool case_sensitive, Budget& budget) {
  std::vector<Keyed> result;
  for (const Value& element : TRY(iterate(input, budget))) {
    result.emplace_back(sort_key(TRY(at_path(element, path, nullptr, budget)), case_sensitive, budget), element);
  }
  TRY(budget.check());
  return result;
}

Result<void> sort_by_key(std::vector<Keyed>& entries, bool descending, Budget& budget) {
  Error error;
  bool failed = false;
  std::stable_sort(entries.begin(), entries.end(), [&](const Keyed& a, const Keyed& b) {
    budget.spend(1);
    if (failed) return false;
    auto result = descending ? less(b.first, a.first, budget) : less(a.first, b.first, budget);
    if (result) return *result;
    failed = true;
    error = std::move(result).error();
    return false;
  });
  if (failed) return std::unexpected(std::move(error));
  return {};
}

Result<Value> sort(const Value& input, const Args& args, Budget& budget) {
  const bool case_sensitive = bool_argument(args, 1, "case_sensitive", false);
  std::vector<Keyed> entries = TRY(keyed(input, args.find(2, "attribute"), case_sensitive, budget));
  TRY(sort_by_key(entries, bool_argument(args, 0, "reverse", false), budget));
  List sorted;
  for (Keyed& entry : entries) sorted.push_back(std::move(entry.second));
  return Value::list(std::move(sorted), budget);
}

Result<Value> dictsort(const Value& input, const Args& args, Budget& budget) {
  if (!input.is(Kind::kDict)) return type_error("dictsort needs a mapping");
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  const std::string by = TRY(string_argument(args, 1, "by", "key"));
  if (by != "key" && by != "value") return type_error("dictsort sorts by key or value");
  std::vector<Keyed> entries;
  for (const auto& [key, value] : input.as_dict().entries()) {
    entries.emplace_back(sort_key(by == "key" ? key : value, case_sensitive, budget),
                         Value::list({key, value}, budget, Sequence::kTuple));
  }
  TRY(sort_by_key(entries, bool_argument(args, 2, "reverse", false), budget));
  List sorted;
  for (Keyed& entry : entries) sorted.push_back(std::move(entry.second));
  return Value::list(std::move(sorted), budget);
}

Result<Value> unique(const Value& input, const Args& args, Budget& budget) {
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  List kept;
  List seen;
  for (auto& [key, value] : TRY(keyed(input, args.find(1, "attribute"), case_sensitive, budget))) {
    const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value& v) { return equals(v, key, budget); });
    TRY(budget.check());
    if (known) continue;
    seen.push_back(key);
    kept.push_back(value);
  }
  return Value::list(std::move(kept), budget, Sequence::kLazy);
}

template <bool largest>
Result<Value> extreme(const Value& input, const Args& args, Budget& budget) {
  const bool case_sensitive = bool_argument(args, 0, "case_sensitive", false);
  const std::vector<Keyed> entries = TRY(keyed(input, args.find(1, "attribute"), case_sensitive, budget));
  if (entries.empty()) return Value::undefined("the sequence is empty");
  const Keyed* best = &entries[0];
  for (const Keyed& entry : entries) {
    if (TRY(largest ? less(best->first, entry.first, budget) : less(entry.first, best->first, budget))) best = &entry;
  }
  return best->second;
}

Result<Value> sum(const Value& input, const Args& args, Budget& budget) {
  const Value* path = args.find(0, "attribute");
  const Value* start = args.find(1, "start");
  Value total = start ? *start : Value::integer(0);
  for (const Value& element : TRY(iterate(input, budget))) {
    total = TRY(arithmetic(Op::kAdd, total, TRY(at_path(element, path, nullptr, budget)), budget));
  }
  return total;
}

Result<Value> batch(const Value& input, const Args& args, Budget& budget) {
  const int64_t size = TRY(int_argument(args, 0, "linecount"));
  const Value* filler = args.find(1, "fill_with");
  if (size < 1) return type_error("batch: the size must be positive");
  List batches;
  List current;
  for (Value& element : TRY(iterate(input, budget))) {
    current.push_back(std::move(element));
    if (static_cast<int64_t>(current.size()) < size) continue;
    batches.push_back(Value::list(std::exchange(current, {}), budget));
  }
  if (!current.empty()) {
    if (filler && !filler->is_none()) {
      budget.spend(size);
      TRY(budget.check());
      current.resize(size, *filler);
    }
    batches.push_back(Value::list(std::move(current), budget));
  }
  return Value::list(std::move(batches), budget, Sequence::kLazy);
}

Args rest_of(const Args& args, size_t from) {
  Args rest{{}, args.named};
  if (from < args.positional.size()) rest.positional.assign(args.positional.begin() + from, args.positional.end());
  return rest;
}

// map and select take none, 0 and the like for an empty sequence.
Result<List> iterate_or_nothing(const Value& input, Budget& budget) {
  return input.truthy() ? iterate(input, budget) : Result<List>(List());
}

Result<Value> map(const Value& input, const Args& args, Budget& budget) {
  List mapped;
  const Value* path = args.positional.empty() ? args.find(0, "attribute") : nullptr;
  const Value* fallback = args.find(Args::kArgsMax, "default");  // by name only
  if (!path && args.positional.empty()) return type_error("map needs a filter or an attribute");
  const std::string name = path ? "" : TRY(string_argument(args, 0, "filter"));
  const Args rest = rest_of(args, 1);
  for (const Value& element : TRY(iterate_or_nothing(input, budget))) {
    TRY(budget.check());
    mapped.push_back(path ? TRY(at_path(element, path, fallback, budget))
                          : TRY(apply_filter(name, element, rest, budget)));
  }
  return Value::list(std::move(mapped), budget, Sequence::kLazy);
}

template <bool wanted, bool by_attribute>
Result<Value> choose(const Value& input, const Args& args, Budget& budget) {
  if (by_attribute && args.positional.empty()) return type_error("an attribute is missing");
  const Value* path = by_attribute ? &args.positional[0] : nullptr;
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  const bool has_test = args.positional.size() > kTestAt;
  const std::string test = has_test ? TRY(string_argument(args, kTestAt, "test")) : "";
  const Args rest = rest_of(args, kTestAt + 1);
  List chosen;
  for (const Value& element : TRY(iterate_or_nothing(input, budget))) {
    TRY(budget.check());
    const Value tested = TRY(at_path(element, path, nullptr, budget));
    if ((has_test ? TRY(apply_test(test, tested, rest, budget)) : tested.truthy()) == wanted) chosen.push_back(element);
  }
  return Value::list(std::move(chosen), budget, Sequence::kLazy);
}

Result<Value> default_value(const Value& input, const Args& args, Budget&) {
  const bool replaces = input.is_undefined() || (bool_argument(args, 1, "boolean", false) && !input.truthy());
  if (!replaces) return input;
  const Value* fallback = args.find(0, "default_value");
  return fallback ? *fallback : Value::string("");
}

Result<Value> attr(const Value& input, const Args& args, Budget& budget) {
  const std::string name = TRY(string_argument(args, 0, "name"));
  if (input.is(Kind::kDict) && !method(input, name, budget)) return Value::undefined("no attribute '" + name + "'");
  return attribute(input, name, budget);
}

const std::unordered_map<std::string_view, Filter>& filters() {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"abs", absolute},
      {"attr", attr},
      {"batch", batch},
      {"capitalize", convert_case<capitalize>},
      {"center", center},
      {"count", length},
      {"d", default_value},
      {"default", default_value},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"first", edge<false>},
      {"float", real},
      {"forceescape", escape},
      {"indent", indent},
      {"int", integer},
      {"items", items},
      {"join", join},
      {"last", edge<true>},
      {"length", length},
      {"list", list},
      {"lower", convert_case<to_lower>},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", choose<false, false>},
      {"rejectattr", choose<false, true>},
      {"replace", replace},
      {"reverse", reverse},
      {"round", round},
      {"safe", safe},
      {"select", choose<true, false>},
      {"selectattr", choose<true, true>},
      {"sort", sort},
      {"string", string},
      {"sum", sum},
      {"title", convert_case<title_words>},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper", convert_case<to_upper>},
      {"wordcount", wordcount},
  };
  return kFilters;
}

}  // namespace

Result<Value> apply_filter(std::string_view name, const Value& input, const Args& args, Budget& budget) {
  const auto it = filters().find(name);
  if (it == filters().end()) {
    return fail(ErrorCode::kUnsupported,
                "the chat template uses the filter '" + std::string(name.substr(0, 40)) + "', which is not supported");
  }
  Value result = TRY(it->second(input, args, budget));
  TRY(budget.check());
  return result;
}

}  // namespace runahead::jinja
