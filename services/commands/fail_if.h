// FailIf: one condition of `bench load --fail-if`, such as ttft_p95>2s, on a number that was measured. Pure.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace runahead {

// Of one run, by name; times are in seconds and end in _s, shares in _ratio: "ttft_p95_s", "failed_ratio", "tokens_per_second".
using Measures = std::map<std::string, double, std::less<>>;

class FailIf {
 public:
  // NAME OP VALUE: NAME of a measure without its _s, OP one of > >= < <=, VALUE with s or ms of a time, with % of a share.
  // Spaces do not count. kInvalidArgument, with what there is, for anything else. names: those of any run.
  static Result<FailIf> parse(std::string_view text, const Measures& names);

  // Also of a number that could not be measured: nothing is known, so nothing is fine.
  bool holds(const Measures& measured) const;
  // "ttft_p95 is 2.310 s: --fail-if ttft_p95>2s".
  std::string sentence(const Measures& measured) const;
  const std::string& text() const { return text_; }

 private:
  enum class Comparison { kAbove, kAtLeast, kBelow, kAtMost };

  std::string text_, name_;  // name_ as in Measures
  Comparison comparison_ = Comparison::kAbove;
  double value_ = 0;
};

}  // namespace runahead
