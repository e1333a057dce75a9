#include "model/chat_template/operators.h"

#include <algorithm>
#include <cmath>

#include "model/chat_template/builtins.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

namespace {

using Kind = Value::Kind;

std::string quoted(std::string_view text) { return "'" + std::string(text.substr(0, 100)) + "'"; }

std::unexpected<Error> overflow() { return type_error("an integer in the chat template exceeds 64 bits"); }

std::unexpected<Error> bad_operands(Op op, const Value& a, const Value& b) {
  static constexpr const char* kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};
  for (const Value* side : {&a, &b}) {
    if (side->is_undefined()) return type_error(side->why_undefined());
  }
  return type_error(std::string("unsupported operands for ") + kSigns[static_cast<int>(op)] + ": " +
                    quoted(a.type_name()) + " and " + quoted(b.type_name()));
}

Result<Value> integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return overflow();
  }
  return Value::integer(result);
}

Result<Value> integers(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case Op::kPow:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) return type_error("division by zero");
  if (op == Op::kDiv) return Value::real(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) return op == Op::kMod ? Value::integer(0) : negate(Value::integer(a));
  const bool round_down = a % b != 0 && (a < 0) != (b < 0);
  return Value::integer(op == Op::kMod ? a % b + (round_down ? b : 0) : a / b - (round_down ? 1 : 0));
}

Result<Value> reals(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value::real(a + b);
    case Op::kSub:
      return Value::real(a - b);
    case Op::kMul:
      return Value::real(a * b);
    case Op::kPow:
      return Value::real(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return type_error("division by zero");
  if (op == Op::kDiv) return Value::real(a / b);
  if (op == Op::kFloorDiv) return Value::real(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value::real(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

Result<Value> repeat(const Value& sequence, int64_t times, Budget& budget) {
  const uint64_t count = std::max<int64_t>(times, 0);
  const bool text = sequence.is_string();
  const uint64_t length = text ? sequence.as_string().size() : sequence.as_list().size();
  if (length > 0 && count > limits::kTemplateOutputBytesMax / length) {
    return fail(ErrorCode::kTooLarge, "the chat template repeats a value too often");
  }
  text ? budget.spend_bytes(count * length) : budget.spend(count * length);
  TRY(budget.check());
  if (text) {
    std::string out;
    out.reserve(count * length);
    for (uint64_t i = 0; length > 0 && i < count; ++i) out += sequence.as_string();
    return Value::string(std::move(out));
  }
  List items;
  for (uint64_t i = 0; length > 0 && i < count; ++i) {
    items.insert(items.end(), sequence.as_list().begin(), sequence.as_list().end());
  }
  return Value::list(std::move(items), budget, sequence.sequence());
}

bool is_sequence(const Value& value) { return value.is_string() || value.is(Kind::kList); }

}  // namespace

Result<Value> arithmetic(Op op, const Value& a, const Value& b, Budget& budget) {
  if (a.is_integral() && b.is_integral()) return integers(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return reals(op, a.as_double(), b.as_double());
  if (op == Op::kAdd && a.is_string() && b.is_string()) {
    budget.spend_bytes(a.as_string().size() + b.as_string().size());
    TRY(budget.check());
    return Value::string(a.as_string() + b.as_string());
  }
  if (op == Op::kAdd && a.is(Kind::kList) && b.is(Kind::kList) && a.sequence() == b.sequence()) {
    budget.spend(a.as_list().size() + b.as_list().size());
    TRY(budget.check());
    List items = a.as_list();
    items.insert(items.end(), b.as_list().begin(), b.as_list().end());
    return Value::list(std::move(items), budget, a.sequence());
  }
  if (op == Op::kMul && is_sequence(a) && b.is_integral()) return repeat(a, b.as_int(), budget);
  if (op == Op::kMul && a.is_integral() && is_sequence(b)) return repeat(b, a.as_int(), budget);
  if (op == Op::kMod && a.is_string()) {
    return fail(ErrorCode::kUnsupported, "the chat template formats a string with %, which is not supported");
  }
  return bad_operands(op, a, b);
}

Result<Value> negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value::real(-value.as_double());
  if (value.is_integral() && value.as_int() == INT64_MIN) return overflow();
  if (value.is_integral()) return Value::integer(-value.as_int());
  if (value.is_undefined()) return type_error(value.why_undefined());
  return type_error("bad operand type for unary -: " + quoted(value.type_name()));
}

Result<bool> compare(Op op, const Value& a, const Value& b, Budget& budget) {
  switch (op) {
    case Op::kEqual:
      return equals(a, b, budget);
    case Op::kNotEqual:
      return !equals(a, b, budget);
    case Op::kLess:
      return less(a, b, budget);
    case Op::kGreater:
      return less(b, a, budget);
    case Op::kLessEqual:
      return TRY(less(a, b, budget)) || equals(a, b, budget);
    case Op::kGreaterEqual:
      return TRY(less(b, a, budget)) || equals(a, b, budget);
    case Op::kIn:
      return contains(b, a, budget);
    case Op::kNotIn:
      return !TRY(contains(b, a, budget));
    default:
      return type_error("not a comparison");
  }
}

Result<bool> contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string()) {
        return type_error("'in <string>' requires string as left operand, not " + std::string(item.type_name()));
      }
      return find_text(container.as_string(), item.as_string(), 0, budget) != std::string::npos;
    case Kind::kList:
      for (const Value& candidate : container.as_list()) {
        if (equals(candidate, item, budget)) return true;
      }
      return false;
    case Kind::kDict:
      if (item.is_string()) budget.spend_bytes(item.as_string().size());
      return container.as_dict().find(item) != nullptr;
    case Kind::kUndefined:
      return false;
    default:
      return type_error("argument of type " + quoted(container.type_name()) + " is not iterable");
  }
}

namespace {

std::string no_attribute(const Value& object, std::string_view name) {
  const std::string type = object.is_none() ? "None" : quoted(std::string(object.type_name()) + " object");
  return type + " has no attribute " + quoted(name);
}

Result<Value> loop_changed(Loop& loop, const Args& args, Budget& budget) {
  if (args.positional.size() != 1) return type_error("loop.changed takes one value");
  const Value& now = args.positional[0];
  if (!now.is_string() && !now.is_number() && !now.is_none() && !now.is_undefined()) {
    return type_error("loop.changed compares strings, numbers and none only");  // so that a loop never holds itself
  }
  const bool changed = !loop.last_changed || !equals(*loop.last_changed, now, budget);
  if (changed) loop.last_changed = now;
  return Value::boolean(changed);
}

Result<Value> loop_cycle(const Loop& loop, const Args& args) {
  if (args.positional.empty()) return type_error("loop.cycle needs at least one value");
  return args.positional[loop.index % args.positional.size()];
}

std::optional<Value> loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name, Budget& budget) {
  const auto index = static_cast<int64_t>(loop->index);
  const auto length = static_cast<int64_t>(loop->items.size());
  if (name == "index") return Value::integer(index + 1);
  if (name == "index0") return Value::integer(index);
  if (name == "revindex") return Value::integer(length - index);
  if (name == "revindex0") return Value::integer(length - index - 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(index + 1 == length);
  if (name == "length") return Value::integer(length);
  if (name == "depth") return Value::integer(loop->depth + 1);
  if (name == "depth0") return Value::integer(loop->depth);
  if (name == "previtem") return index > 0 ? loop->items[index - 1] : Value::undefined("no previous item");
  if (name == "nextitem") return index + 1 < length ? loop->items[index + 1] : Value::undefined("no next item");
  if (name == "cycle") {
    return Value::callable(
        "cycle", [loop](const Args& args) { return loop_cycle(*loop, args); }, loop->value_depth + 1);
  }
  if (name == "changed") {
    return Value::callable(
        "changed", [loop, &budget](const Args& args) { return loop_changed(*loop, args, budget); },
        loop->value_depth + 1);
  }
  return std::nullopt;
}

// Index of element `index` of `length`, which may count from the end.
std::optional<size_t> element(int64_t index, size_t length) {
  const auto signed_length = static_cast<int64_t>(length);
  if (index < -signed_length || index >= signed_length) return std::nullopt;
  return index < 0 ? index + signed_length : index;
}

std::optional<Value> own_attribute(const Value& object, std::string_view name, Budget& budget) {
  if (object.is(Kind::kNamespace)) {
    const auto& attributes = object.as_namespace().attributes;
    budget.spend(attributes.size() / 8);
    for (const auto& [key, value] : attributes) {
      if (key == name) return value;
    }
    return std::nullopt;
  }
  if (object.is(Kind::kLoop)) return loop_attribute(object.as_loop(), name, budget);
  return method(object, name, budget);
}

}  // namespace

Result<Value> attribute(const Value& object, std::string_view name, Budget& budget) {
  if (object.is_undefined()) return type_error(object.why_undefined());
  budget.spend_bytes(name.size());
  if (auto found = own_attribute(object, name, budget)) return *found;
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.as_dict().find(name)) return *found;
  }
  return Value::undefined(no_attribute(object, name));
}

Result<Value> item(const Value& object, const Value& key, Budget& budget) {
  if (object.is_undefined()) return type_error(object.why_undefined());
  if (key.is_string()) budget.spend_bytes(key.as_string().size());
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.as_dict().find(key)) return *found;
  } else if (object.is(Kind::kList) && key.is_integral() && object.sequence() != Sequence::kLazy) {
    if (const auto index = element(key.as_int(), object.as_list().size())) return object.as_list()[*index];
  } else if (object.is_string() && key.is_integral()) {
    const std::string& text = object.as_string();
    budget.spend_bytes(text.size());
    if (const auto index = element(key.as_int(), count_chars(text))) {
      const size_t start = byte_offset(text, *index);
      size_t end = start;
      next_char(text, end);
      return Value::string(text.substr(start, end - start));
    }
  }
  if (key.is_string()) {
    if (auto found = own_attribute(object, key.as_string(), budget)) return *found;
  }
  return Value::undefined(no_attribute(object, to_str(key, budget)));
}

namespace {

struct SliceRange {
  int64_t start, count, step;
};

// Python's slice.indices().
Result<SliceRange> slice_range(const Value& start, const Value& stop, const Value& step, int64_t length) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->is_integral()) return type_error("slice indices must be integers or none");
  }
  const int64_t stride = step.is_none() ? 1 : step.as_int();
  if (stride == 0 || stride == INT64_MIN) return type_error("slice step must not be zero");
  const int64_t low = stride < 0 ? -1 : 0;
  const int64_t high = stride < 0 ? length - 1 : length;
  const auto bound = [&](const Value& value, int64_t absent) {
    if (value.is_none()) return absent;
    const int64_t index = value.as_int();
    return index < 0 ? std::max(index + length, low) : std::min(index, high);
  };
  const int64_t first = bound(start, stride < 0 ? high : low);
  const int64_t last = bound(stop, stride < 0 ? low : high);
  const int64_t distance = stride < 0 ? first - last : last - first;
  const int64_t width = stride < 0 ? -stride : stride;
  return SliceRange{first, distance <= 0 ? 0 : (distance - 1) / width + 1, stride};
}

}  // namespace

Result<Value> slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  if (object.is_undefined()) return type_error(object.why_undefined());
  if (!is_sequence(object) || (object.is(Kind::kList) && object.sequence() == Sequence::kLazy)) {
    return Value::undefined(no_attribute(object, "slice"));
  }
  const bool text = object.is_string();
  if (text) budget.spend_bytes(object.as_string().size());
  const size_t length = text ? count_chars(object.as_string()) : object.as_list().size();
  const SliceRange range = TRY(slice_range(start, stop, step, static_cast<int64_t>(length)));
  if (text && range.step == 1) {
    const std::string_view all = object.as_string();
    const std::string_view tail = all.substr(byte_offset(all, range.start));
    return Value::string(std::string(tail.substr(0, byte_offset(tail, range.count))));
  }
  const List characters = text ? TRY(iterate(object, budget)) : List();
  const List& items = text ? characters : object.as_list();
  List picked;
  for (int64_t i = 0; i < range.count; ++i) picked.push_back(items[range.start + i * range.step]);
  if (!text) return Value::list(std::move(picked), budget, object.sequence());
  std::string out;
  for (const Value& character : picked) out += character.as_string();
  return Value::string(std::move(out));
}

}  // namespace runahead::jinja
