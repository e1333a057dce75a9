#include "model/chat_template/builtins.h"
#include "model/chat_template/interpreter.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {

using Kind = Value::Kind;

namespace {

// dict(mapping_or_pairs, name=value...)
Result<std::shared_ptr<Dict>> make_dict(const Args& args, Budget& budget) {
  auto dict = std::make_shared<Dict>();
  if (args.positional.size() > 1) return type_error("dict takes one mapping");
  for (const Value& source : args.positional) {
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.as_dict().entries()) dict->set(key, value, budget);
      continue;
    }
    for (const Value& entry : TRY(iterate(source, budget))) {
      const List pair = TRY(iterate(entry, budget));
      if (pair.size() != 2 || !dict->set(pair[0], pair[1], budget)) return type_error("dict needs pairs");
    }
  }
  for (const auto& [name, value] : args.named) dict->set(Value::string(name), value, budget);
  return dict;
}

Result<Value> make_range(const Args& args, Budget& budget) {
  constexpr int64_t kRangeMax = 100'000;  // jinja2's sandbox has the same bound
  if (args.positional.empty() || args.positional.size() > 3) return type_error("range takes 1 to 3 integers");
  for (const Value& arg : args.positional) {
    if (!arg.is_integral()) return type_error("range takes integers");
  }
  const bool from_zero = args.positional.size() == 1;
  const int64_t first = from_zero ? 0 : args.positional[0].as_int();
  const int64_t last = args.positional[from_zero ? 0 : 1].as_int();
  const int64_t step = args.positional.size() == 3 ? args.positional[2].as_int() : 1;
  if (step == 0) return type_error("range: the step must not be zero");
  List items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (items.size() >= kRangeMax) return type_error("range: over 100000 numbers");
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::list(std::move(items), budget);
}

}  // namespace

void Interpreter::define_globals() {
  define("range", Value::callable("range", [this](const Args& args) { return make_range(args, budget_); }));
  define("dict", Value::callable("dict", [this](const Args& args) -> Result<Value> {
           return Value::dict(TRY(make_dict(args, budget_)));
         }));
  define("namespace", Value::callable("namespace", [this](const Args& args) -> Result<Value> {
           auto result = std::make_shared<Namespace>();
           const std::shared_ptr<Dict> dict = TRY(make_dict(args, budget_));
           for (const auto& [key, value] : dict->entries()) {
             result->attributes.emplace_back(to_str(key, budget_), value);
           }
           namespaces_.push_back(result);
           return Value::name_space(std::move(result));
         }));
}

}  // namespace runahead::jinja
