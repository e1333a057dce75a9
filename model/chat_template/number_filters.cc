#include <cmath>

#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {
namespace {

using Kind = Value::Kind;

Result<Value> absolute(const Value& input, const Args&, Budget&) {
  if (!input.is_number()) return type_error("abs needs a number, found " + std::string(input.type_name()));
  if (input.is(Kind::kFloat)) return Value::real(std::abs(input.as_double()));
  return input.as_int() < 0 ? negate(input) : Result<Value>(Value::integer(input.as_int()));
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

}  // namespace

const Builtins& number_filters() {
  static const Builtins kFilters = {{"abs", absolute}, {"float", real}, {"int", integer}, {"round", round}};
  return kFilters;
}

}  // namespace runahead::jinja
