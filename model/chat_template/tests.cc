// The tests of the chat-template language: `x is defined`, `select("equalto", y)`.
#include <unordered_map>

#include "model/chat_template/builtins.h"
#include "model/chat_template/characters.h"
#include "model/chat_template/operators.h"

namespace runahead::jinja {

namespace {

using Kind = Value::Kind;
using Test = Result<bool> (*)(const Value& input, const Args& args, Budget& budget);

template <Kind... kinds>
Result<bool> is_kind(const Value& input, const Args&, Budget&) {
  return (input.is(kinds) || ...);
}

template <Kind kind>
Result<bool> is_not_kind(const Value& input, const Args&, Budget&) {
  return !input.is(kind);
}

template <bool value>
Result<bool> is_bool(const Value& input, const Args&, Budget&) {
  return input.is(Kind::kBool) && input.as_bool() == value;
}

Result<bool> is_number(const Value& input, const Args&, Budget&) { return input.is_number(); }

Result<bool> is_sequence(const Value& input, const Args&, Budget&) {
  if (input.is(Kind::kList)) return input.sequence() != Sequence::kLazy;
  return input.is_string() || input.is(Kind::kDict) || input.is_undefined();
}

template <Op op>
Result<bool> compares(const Value& input, const Args& args, Budget& budget) {
  if (args.positional.size() != 1) return type_error("a comparing test needs one argument");
  return compare(op, input, args.positional[0], budget);
}

Result<bool> divides(const Value& input, int64_t divisor, int64_t rest, Budget& budget) {
  const Value left = TRY(arithmetic(Op::kMod, input, Value::integer(divisor), budget));
  return equals(left, Value::integer(rest), budget);
}

Result<bool> is_even(const Value& input, const Args&, Budget& budget) { return divides(input, 2, 0, budget); }
Result<bool> is_odd(const Value& input, const Args&, Budget& budget) { return divides(input, 2, 1, budget); }
Result<bool> is_divisible(const Value& input, const Args& args, Budget& budget) {
  return divides(input, TRY(int_argument(args, 0, "num")), 0, budget);
}

// Python's `is`: one object. Scalars of one type and value count as one.
Result<bool> is_same(const Value& input, const Args& args, Budget& budget) {
  if (args.positional.size() != 1) return type_error("sameas needs one argument");
  const Value& other = args.positional[0];
  if (input.kind() != other.kind()) return false;
  if (input.is(Kind::kList)) return &input.as_list() == &other.as_list();
  if (input.is(Kind::kDict)) return &input.as_dict() == &other.as_dict();
  return equals(input, other, budget);
}

template <bool (*has_case)(std::string_view)>
Result<bool> whole_case(const Value& input, const Args&, Budget& budget) {
  const std::string text = to_str(input, budget);
  budget.spend(text.size() / 2);
  TRY(budget.check());
  return has_case(text);
}

const std::unordered_map<std::string_view, Test>& tests() {
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"defined", is_not_kind<Kind::kUndefined>},
      {"undefined", is_kind<Kind::kUndefined>},
      {"none", is_kind<Kind::kNone>},
      {"string", is_kind<Kind::kString>},
      {"number", is_number},
      {"integer", is_kind<Kind::kInt>},
      {"float", is_kind<Kind::kFloat>},
      {"boolean", is_kind<Kind::kBool>},
      {"true", is_bool<true>},
      {"false", is_bool<false>},
      {"mapping", is_kind<Kind::kDict>},
      {"sequence", is_sequence},
      {"iterable", is_kind<Kind::kList, Kind::kDict, Kind::kString, Kind::kUndefined>},
      {"callable", is_kind<Kind::kCallable>},
      {"even", is_even},
      {"odd", is_odd},
      {"divisibleby", is_divisible},
      {"sameas", is_same},
      {"in", compares<Op::kIn>},
      {"equalto", compares<Op::kEqual>},
      {"eq", compares<Op::kEqual>},
      {"==", compares<Op::kEqual>},
      {"ne", compares<Op::kNotEqual>},
      {"!=", compares<Op::kNotEqual>},
      {"lt", compares<Op::kLess>},
      {"lessthan", compares<Op::kLess>},
      {"<", compares<Op::kLess>},
      {"le", compares<Op::kLessEqual>},
      {"<=", compares<Op::kLessEqual>},
      {"gt", compares<Op::kGreater>},
      {"greaterthan", compares<Op::kGreater>},
      {">", compares<Op::kGreater>},
      {"ge", compares<Op::kGreaterEqual>},
      {">=", compares<Op::kGreaterEqual>},
      {"lower", whole_case<is_lower>},
      {"upper", whole_case<is_upper>},
  };
  return kTests;
}

}  // namespace

Result<bool> apply_test(std::string_view name, const Value& input, const Args& args, Budget& budget) {
  const auto it = tests().find(name);
  if (it == tests().end()) {
    return fail(ErrorCode::kUnsupported,
                "the chat template uses the test '" + std::string(name.substr(0, 40)) + "', which is not supported");
  }
  const bool result = TRY(it->second(input, args, budget));
  TRY(budget.check());
  return result;
}

}  // namespace runahead::jinja
