#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {
namespace {

using Kind = Value::Kind;

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

// Those that call other filters and tests, and those of any value.
const Builtins& own_filters() {
  static const Builtins kFilters = {
      {"attr", attr},
      {"d", default_value},
      {"default", default_value},
      {"map", map},
      {"reject", choose<false, false>},
      {"rejectattr", choose<false, true>},
      {"select", choose<true, false>},
      {"selectattr", choose<true, true>},
  };
  return kFilters;
}

}  // namespace

Result<Value> apply_filter(std::string_view name, const Value& input, const Args& args, Budget& budget) {
  Builtin filter = nullptr;
  for (const Builtins* table : {&own_filters(), &text_filters(), &number_filters(), &sequence_filters()}) {
    const auto found = table->find(name);
    if (found != table->end()) filter = found->second;
  }
  if (!filter) {
    return fail(ErrorCode::kUnsupported,
                "the chat template uses the filter '" + std::string(name.substr(0, 40)) + "', which is not supported");
  }
  Value result = TRY(filter(input, args, budget));
  TRY(budget.check());
  return result;
}

}  // namespace runahead::jinja
