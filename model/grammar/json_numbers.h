// How an automaton reads numbers of JSON: any, or those between two bounds. Exact: bounds are compared as decimal digits, not as
// floating point. Numbers are written as people write them: at most kWholeDigits before the point, kFractionDigits behind it, an
// exponent only where there are no bounds. Pure.
#pragma once

#include <optional>
#include <string>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

inline constexpr int kWholeDigits = 18;  // what a 64-bit integer always holds
inline constexpr int kFractionDigits = 17;  // what tells two doubles apart

struct Bound {
  // value: as JSON prints it: "-3", "0.25", "1e-07". kUnsupported beyond the digits above.
  static Result<Bound> parse(const std::string& value, bool inclusive);

  bool negative = false;
  std::string whole;  // digits without leading zeros; "0" alone is the empty text
  std::string fraction;  // digits without trailing zeros
  bool inclusive = true;
};

struct NumberRange {
  bool whole = false;  // integers only
  std::optional<Bound> low, high;
};

// kInvalidArgument if nothing lies between the bounds.
Result<void> read_number(Automaton& automaton, Node from, const NumberRange& range, Node to);

}  // namespace runahead::grammar
