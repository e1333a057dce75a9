#include "model/chat_template/json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

namespace {

using nlohmann::ordered_json;

Result<Value> read(const ordered_json& json, Budget& budget, int depth);

Result<Value> read_string(const std::string& text, Budget& budget) {
  if (utf8_valid_prefix(text) != text.size()) return type_error("a string is not valid UTF-8; send UTF-8 text");
  budget.spend_bytes(text.size());
  return Value::string(text);
}

Result<Value> read_object(const ordered_json& json, Budget& budget, int depth) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, item] : json.items()) {
    const Value name = TRY(read_string(key, budget));
    dict->set(name, TRY(read(item, budget, depth)), budget);
  }
  return Value::dict(std::move(dict));
}

Result<Value> read(const ordered_json& json, Budget& budget, int depth) {
  if (depth >= limits::kTemplateDepthMax) return type_error("the messages nest too deeply; flatten them");
  TRY(budget.check());
  switch (json.type()) {
    case ordered_json::value_t::object:
      return read_object(json, budget, depth + 1);
    case ordered_json::value_t::array: {
      List items;
      for (const auto& item : json) items.push_back(TRY(read(item, budget, depth + 1)));
      return Value::list(std::move(items), budget);
    }
    case ordered_json::value_t::string:
      return read_string(json.get_ref<const std::string&>(), budget);
    case ordered_json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case ordered_json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        return type_error("an integer does not fit 64 bits; send it as a string");
      }
      return Value::integer(json.get<int64_t>());
    case ordered_json::value_t::number_float:
      return Value::real(json.get<double>());
    default:
      return Value::none();
  }
}

void append_escape(std::string& out, uint32_t unit) {
  char escape[sizeof("\\u") + 2 * sizeof(unit)];  // any 32 bits, so that no compiler sees it cut
  std::snprintf(escape, sizeof(escape), "\\u%04x", unit);
  out += escape;
}

class Writer {
 public:
  Writer(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  Result<std::string> write(const Value& value) {
    TRY(append(value, 0));
    TRY(budget_.check());
    return std::move(out_);
  }

 private:
  Result<void> append(const Value& value, int level);
  Result<void> append_list(const List& items, int level);
  Result<void> append_dict(const Dict& dict, int level);
  Result<void> append_key(const Value& key);
  void append_string(const std::string& text);
  void new_line(int level);

  const JsonStyle& style_;
  Budget& budget_;
  std::string out_;
};

void Writer::new_line(int level) {
  if (!style_.indent) return;
  budget_.spend_bytes(style_.indent->size() * level);
  out_ += '\n';
  for (int i = 0; i < level && !budget_.broken(); ++i) out_ += *style_.indent;
}

void Writer::append_string(const std::string& text) {
  if (!budget_.spend_bytes(text.size())) return;
  out_ += '"';
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    switch (c) {
      case '"':
        out_ += "\\\"";
        break;
      case '\\':
        out_ += "\\\\";
        break;
      case '\n':
        out_ += "\\n";
        break;
      case '\r':
        out_ += "\\r";
        break;
      case '\t':
        out_ += "\\t";
        break;
      case '\b':
        out_ += "\\b";
        break;
      case '\f':
        out_ += "\\f";
        break;
      default:
        if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) {
          append_char(out_, c);
        } else if (c < 0x10000) {
          append_escape(out_, c);
        } else {  // a surrogate pair
          append_escape(out_, 0xD800 + ((c - 0x10000) >> 10));
          append_escape(out_, 0xDC00 + ((c - 0x10000) & 0x3FF));
        }
    }
  }
  out_ += '"';
}

Result<void> Writer::append_list(const List& items, int level) {
  if (items.empty()) {
    out_ += "[]";
    return {};
  }
  out_ += '[';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out_ += style_.item_separator;
    new_line(level + 1);
    TRY(append(items[i], level + 1));
  }
  new_line(level);
  out_ += ']';
  return {};
}

Result<void> Writer::append_key(const Value& key) {
  if (key.is_string()) {
    append_string(key.as_string());
    return {};
  }
  out_ += '"';
  TRY(append(key, 0));
  out_ += '"';
  return {};
}

Result<void> Writer::append_dict(const Dict& dict, int level) {
  if (dict.entries().empty()) {
    out_ += "{}";
    return {};
  }
  std::vector<const Dict::Entry*> entries;
  for (const auto& entry : dict.entries()) entries.push_back(&entry);
  if (style_.sort_keys) {
    budget_.spend(entries.size() * 20);  // log2 of a million keys
    std::stable_sort(entries.begin(), entries.end(),
                     [&](const auto* a, const auto* b) { return less(a->first, b->first, budget_).value_or(false); });
  }
  out_ += '{';
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out_ += style_.item_separator;
    new_line(level + 1);
    TRY(append_key(entries[i]->first));
    out_ += style_.key_separator;
    TRY(append(entries[i]->second, level + 1));
  }
  new_line(level);
  out_ += '}';
  return {};
}

Result<void> Writer::append(const Value& value, int level) {
  budget_.spend_bytes(style_.item_separator.size() + style_.key_separator.size());
  TRY(budget_.check());
  switch (value.kind()) {
    case Value::Kind::kNone:
      out_ += "null";
      return {};
    case Value::Kind::kBool:
      out_ += value.as_bool() ? "true" : "false";
      return {};
    case Value::Kind::kInt:
      out_ += std::to_string(value.as_int());
      return {};
    case Value::Kind::kFloat: {
      const double d = value.as_double();
      out_ += std::isnan(d) ? "NaN" : std::isinf(d) ? (d > 0 ? "Infinity" : "-Infinity") : float_repr(d);
      return {};
    }
    case Value::Kind::kString:
      append_string(value.as_string());
      return {};
    case Value::Kind::kDict:
      return append_dict(value.as_dict(), level);
    case Value::Kind::kList:
      if (value.sequence() != Sequence::kLazy) return append_list(value.as_list(), level);
      [[fallthrough]];
    default:
      return type_error("Object of type " + std::string(value.type_name()) + " is not JSON serializable");
  }
}

}  // namespace

Result<Value> from_json(const ordered_json& json, Budget& budget) {
  Value value = TRY(read(json, budget, 0));
  TRY(budget.check());
  return value;
}

Result<std::string> to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  return Writer(style, budget).write(value);
}

}  // namespace runahead::jinja
