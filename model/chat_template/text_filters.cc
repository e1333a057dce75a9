#include "model/chat_template/builtins.h"
#include "model/chat_template/characters.h"
#include "model/chat_template/json.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {
namespace {

using Kind = Value::Kind;

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
  const auto add_word = [&](size_t end) {
    size_t rest = start;
    if (start < end) next_char(text, rest);
    out += to_upper(text.substr(start, rest - start)) + to_lower(text.substr(rest, end - rest));
  };
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
    const bool word = is_alnum(c) || c == '_';
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

}  // namespace

const Builtins& text_filters() {
  static const Builtins kFilters = {
      {"capitalize", convert_case<capitalize>},
      {"center", center},
      {"e", escape},
      {"escape", escape},
      {"forceescape", escape},
      {"indent", indent},
      {"lower", convert_case<to_lower>},
      {"replace", replace},
      {"safe", safe},
      {"string", string},
      {"title", convert_case<title_words>},
      {"tojson", tojson},
      {"trim", trim},
      {"upper", convert_case<to_upper>},
      {"wordcount", wordcount},
  };
  return kFilters;
}

}  // namespace runahead::jinja
