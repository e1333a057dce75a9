#include "model/chat_template/builtins.h"

namespace runahead::jinja {
namespace {

Result<Value> list_index(const Value& self, const Args& args, Budget& budget) {
  for (size_t i = 0; !args.positional.empty() && i < self.as_list().size(); ++i) {
    if (equals(self.as_list()[i], args.positional[0], budget)) return Value::integer(static_cast<int64_t>(i));
  }
  return type_error("the value is not in the list");
}

Result<Value> list_count(const Value& self, const Args& args, Budget& budget) {
  int64_t found = 0;
  for (const Value& item : self.as_list()) {
    found += !args.positional.empty() && equals(item, args.positional[0], budget);
  }
  return Value::integer(found);
}

Result<Value> same(const Value& self, const Args&, Budget&) { return self; }

Result<Value> dict_get(const Value& self, const Args& args, Budget&) {
  if (args.positional.empty() || args.positional.size() > 2) return type_error("get takes a key and a default");
  const Value* found = self.as_dict().find(args.positional[0]);
  if (found) return *found;
  return args.positional.size() > 1 ? args.positional[1] : Value::none();
}

template <bool keys, bool values>
Result<Value> dict_view(const Value& self, const Args&, Budget& budget) {
  List items;
  budget.spend(self.as_dict().entries().size());
  TRY(budget.check());
  for (const auto& [key, value] : self.as_dict().entries()) {
    items.push_back(keys && values ? Value::list({key, value}, budget, Sequence::kTuple) : keys ? key : value);
  }
  return Value::list(std::move(items), budget);
}

const Builtins& list_methods() {
  static const Builtins kMethods = {{"index", list_index}, {"count", list_count}, {"copy", same}};
  return kMethods;
}

const Builtins& dict_methods() {
  static const Builtins kMethods = {{"get", dict_get},
                                    {"items", dict_view<true, true>},
                                    {"keys", dict_view<true, false>},
                                    {"values", dict_view<false, true>},
                                    {"copy", same}};
  return kMethods;
}

bool changes_list(std::string_view name) {
  for (const std::string_view unsafe : {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}) {
    if (name == unsafe) return true;
  }
  return false;
}

bool changes_dict(std::string_view name) {
  for (const std::string_view unsafe : {"clear", "pop", "popitem", "setdefault", "update"}) {
    if (name == unsafe) return true;
  }
  return false;
}

}  // namespace

std::optional<Value> method(const Value& object, std::string_view name, Budget& budget) {
  const Builtins* methods = nullptr;
  bool changes = false;
  if (object.is_string()) {
    methods = &string_methods();
  } else if (object.is(Value::Kind::kList) && object.sequence() != Sequence::kLazy) {
    methods = &list_methods();
    changes = object.sequence() == Sequence::kList && changes_list(name);
  } else if (object.is(Value::Kind::kDict)) {
    methods = &dict_methods();
    changes = changes_dict(name);
  }
  if (changes) {
    return Value::undefined("access to attribute '" + std::string(name) + "' of '" + std::string(object.type_name()) +
                            "' object is unsafe");
  }
  if (!methods) return std::nullopt;
  const auto it = methods->find(name);
  if (it == methods->end()) return std::nullopt;
  const auto bound = [object, call = it->second, &budget](const Args& args) -> Result<Value> {
    Value result = TRY(call(object, args, budget));
    TRY(budget.check());
    return result;
  };
  return Value::callable(std::string(name), bound, object.depth() + 1);
}

}  // namespace runahead::jinja
