#include <algorithm>

#include "model/chat_template/builtins.h"
#include "model/chat_template/characters.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

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

namespace {

using Kind = Value::Kind;

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

}  // namespace

const Builtins& sequence_filters() {
  static const Builtins kFilters = {
      {"batch", batch}, {"count", length},      {"dictsort", dictsort},  {"first", edge<false>},
      {"items", items}, {"join", join},         {"last", edge<true>},    {"length", length},
      {"list", list},   {"max", extreme<true>}, {"min", extreme<false>}, {"reverse", reverse},
      {"sort", sort},   {"sum", sum},           {"unique", unique},
  };
  return kFilters;
}

}  // namespace runahead::jinja
