#include "model/chat_template/value.h"

#include <algorithm>
#include <cmath>

#include "model/chat_template/text.h"

namespace runahead::jinja {

bool Budget::spend(uint64_t steps) {
  if (steps > left_) {
    left_ = 0;
    if (!broken_) broken_ = "the chat template takes too many steps; it may loop without end";
    return false;
  }
  left_ -= steps;
  return !broken_;
}

Result<void> Budget::check() const {
  if (broken_) return fail(ErrorCode::kTooLarge, broken_, "messages");
  return {};
}

Value Value::undefined(std::string why) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(why))});
}
Value Value::none() { return Value(None{}); }
Value Value::boolean(bool b) { return Value(b); }
Value Value::integer(int64_t i) { return Value(i); }
Value Value::real(double d) { return Value(d); }
Value Value::string(std::string s) { return Value(std::make_shared<const std::string>(std::move(s))); }

Value Value::list(List items, Budget& budget, Sequence sequence) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  if (depth >= limits::kTemplateDepthMax) {
    budget.report_depth();
    return Value();
  }
  budget.spend(items.size());
  return Value(std::make_shared<const ListData>(std::move(items), sequence, depth + 1));
}

Value Value::callable(std::string name, std::function<Result<Value>(const Args&)> call, int depth) {
  return Value(std::make_shared<const Callable>(std::move(name), std::move(call), depth));
}

const List& Value::as_list() const { return std::get<std::shared_ptr<const ListData>>(data_)->items; }
Sequence Value::sequence() const { return std::get<std::shared_ptr<const ListData>>(data_)->sequence; }

std::string Value::why_undefined() const {
  const auto& why = std::get<Undefined>(data_).why;
  return why ? *why : "a value is undefined";
}

int Value::depth() const {
  if (is(Kind::kList)) return std::get<std::shared_ptr<const ListData>>(data_)->depth;
  if (is(Kind::kDict)) return as_dict().depth();
  if (is(Kind::kLoop)) return as_loop()->value_depth;
  return is(Kind::kCallable) ? as_callable().depth : 0;
}

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return as_int() != 0;
    case Kind::kFloat:
      return as_double() != 0;
    case Kind::kString:
      return !as_string().empty();
    case Kind::kList:
      return sequence() == Sequence::kLazy || !as_list().empty();
    case Kind::kDict:
      return !as_dict().entries().empty();
    default:
      return true;
  }
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return sequence() == Sequence::kList ? "list" : sequence() == Sequence::kTuple ? "tuple" : "generator";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCallable:
      return "function";
  }
  return "object";
}

namespace {

// 1, 1.0 and True are one key in Python.
std::optional<std::string> hash_text(const Value& key) {
  if (key.is_string()) return "s" + key.as_string();
  if (key.is_none()) return "n";
  if (key.is_integral()) return "i" + std::to_string(key.as_int());
  if (key.is(Value::Kind::kFloat)) {
    const double d = key.as_double();
    if (d == std::floor(d) && std::abs(d) < 1e18) return "i" + std::to_string(static_cast<int64_t>(d));
    return "f" + float_repr(d);
  }
  return std::nullopt;
}

}  // namespace

bool Dict::set(const Value& key, Value value, Budget& budget) {
  const auto text = hash_text(key);
  if (!text) return false;
  budget.spend_bytes(text->size());
  if (value.depth() >= limits::kTemplateDepthMax) {
    budget.report_depth();
    return true;
  }
  depth_ = std::max(depth_, value.depth() + 1);
  const auto [it, added] = index_.emplace(*text, static_cast<uint32_t>(entries_.size()));
  if (added) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[it->second].second = std::move(value);
  }
  return true;
}

const Value* Dict::find(const Value& key) const {
  const auto text = hash_text(key);
  if (!text) return nullptr;
  const auto it = index_.find(*text);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto it = index_.find("s" + std::string(key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Args::find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool equals(const Value& a, const Value& b, Budget& budget) {
  using Kind = Value::Kind;
  if (!budget.spend(1)) return false;
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() == b.as_double();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return budget.spend_bytes(std::min(a.as_string().size(), b.as_string().size())) && a.as_string() == b.as_string();
    case Kind::kList: {
      if (a.sequence() != b.sequence() || a.as_list().size() != b.as_list().size()) return false;
      for (size_t i = 0; i < a.as_list().size(); ++i) {
        if (!equals(a.as_list()[i], b.as_list()[i], budget)) return false;
      }
      return true;
    }
    case Kind::kDict: {
      if (a.as_dict().entries().size() != b.as_dict().entries().size()) return false;
      for (const auto& [key, value] : a.as_dict().entries()) {
        const Value* other = b.as_dict().find(key);
        if (!other || !equals(value, *other, budget)) return false;
      }
      return true;
    }
    case Kind::kNamespace:
      return &a.as_namespace() == &b.as_namespace();
    case Kind::kLoop:
      return a.as_loop() == b.as_loop();
    default:
      return &a.as_callable() == &b.as_callable();
  }
}

Result<bool> less(const Value& a, const Value& b, Budget& budget) {
  TRY(budget.check());
  if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() < b.as_double();
  if (a.is_string() && b.is_string()) {  // bytes of UTF-8 sort as code points do
    budget.spend_bytes(std::min(a.as_string().size(), b.as_string().size()));
    return a.as_string() < b.as_string();
  }
  if (a.is(Value::Kind::kList) && b.is(Value::Kind::kList) && a.sequence() == b.sequence()) {
    const size_t common = std::min(a.as_list().size(), b.as_list().size());
    for (size_t i = 0; i < common; ++i) {
      if (!equals(a.as_list()[i], b.as_list()[i], budget)) return less(a.as_list()[i], b.as_list()[i], budget);
    }
    return a.as_list().size() < b.as_list().size();
  }
  for (const Value* side : {&a, &b}) {
    if (side->is_undefined()) return type_error(side->why_undefined());
  }
  return type_error("'" + std::string(a.type_name()) + "' and '" + std::string(b.type_name()) + "' have no order");
}

void append_str(std::string& out, const Value& value, Budget& budget) {
  if (value.is_undefined()) return;
  if (!value.is_string()) return append_repr(out, value, budget);
  if (budget.spend_bytes(value.as_string().size())) out += value.as_string();
}

namespace {

void append_list_repr(std::string& out, const Value& value, Budget& budget) {
  const bool tuple = value.sequence() == Sequence::kTuple;
  out += tuple ? '(' : '[';
  const char* separator = "";
  for (const Value& item : value.as_list()) {
    out += separator;
    append_repr(out, item, budget);
    separator = ", ";
  }
  if (tuple && value.as_list().size() == 1) out += ',';
  out += tuple ? ')' : ']';
}

void append_dict_repr(std::string& out, const Dict& dict, Budget& budget) {
  out += '{';
  const char* separator = "";
  for (const auto& [key, item] : dict.entries()) {
    out += separator;
    append_repr(out, key, budget);
    out += ": ";
    append_repr(out, item, budget);
    separator = ", ";
  }
  out += '}';
}

}  // namespace

void append_repr(std::string& out, const Value& value, Budget& budget) {
  if (!budget.spend(1)) return;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out += "Undefined";
      break;
    case Value::Kind::kNone:
      out += "None";
      break;
    case Value::Kind::kBool:
      out += value.as_bool() ? "True" : "False";
      break;
    case Value::Kind::kInt:
      out += std::to_string(value.as_int());
      break;
    case Value::Kind::kFloat:
      out += float_repr(value.as_double());
      break;
    case Value::Kind::kString:
      if (budget.spend_bytes(value.as_string().size())) append_quoted_repr(out, value.as_string());
      break;
    case Value::Kind::kList:
      append_list_repr(out, value, budget);
      break;
    case Value::Kind::kDict:
      append_dict_repr(out, value.as_dict(), budget);
      break;
    case Value::Kind::kNamespace:
      out += "<Namespace>";
      break;
    case Value::Kind::kLoop:
      out += "<LoopContext>";
      break;
    case Value::Kind::kCallable:
      out += "<function " + value.as_callable().name + ">";
      break;
  }
}

std::string to_str(const Value& value, Budget& budget) {
  std::string out;
  append_str(out, value, budget);
  return out;
}

Result<List> iterate(const Value& value, Budget& budget) {
  List items;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      break;
    case Value::Kind::kList:
      budget.spend(value.as_list().size());
      TRY(budget.check());
      items = value.as_list();
      break;
    case Value::Kind::kDict:
      budget.spend(value.as_dict().entries().size());
      for (const auto& entry : value.as_dict().entries()) items.push_back(entry.first);
      break;
    case Value::Kind::kString: {
      const std::string& text = value.as_string();
      budget.spend(text.size());
      TRY(budget.check());
      for (size_t pos = 0; pos < text.size();) {
        const size_t start = pos;
        next_char(text, pos);
        items.push_back(Value::string(text.substr(start, pos - start)));
      }
      break;
    }
    default:
      return type_error("'" + std::string(value.type_name()) + "' object is not iterable");
  }
  TRY(budget.check());
  return items;
}

}  // namespace runahead::jinja
