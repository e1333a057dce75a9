#include "services/commands/fail_if.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace runahead {
namespace {

std::string without_spaces(std::string_view text) {
  std::string kept;
  std::ranges::copy_if(text, std::back_inserter(kept), [](char c) { return c != ' ' && c != '\t'; });
  return kept;
}

// As people write it: "ttft_p95" of "ttft_p95_s".
std::string_view short_name(std::string_view measure) {
  return measure.ends_with("_s") ? measure.substr(0, measure.size() - 2) : measure;
}

std::string names_of(const Measures& measures) {
  std::string names;
  for (const auto& [name, value] : measures) names += (names.empty() ? "" : ", ") + std::string(short_name(name));
  return names;
}

// What one of `unit` is worth in the measure's own; 0 if it does not fit.
double factor_of(std::string_view measure, std::string_view unit) {
  if (measure.ends_with("_s")) return unit == "s" ? 1 : unit == "ms" ? 1e-3 : 0;
  if (unit == "%") return measure.ends_with("_ratio") ? 0.01 : 0;
  return unit.empty() ? 1 : 0;
}

std::string number_text(std::string_view measure, double value) {
  if (std::isnan(value)) return "not measured";
  if (measure.ends_with("_s")) return fmt::format("{:.3f} s", value);
  if (measure.ends_with("_ratio")) return fmt::format("{:.1f} %", 100 * value);
  return fmt::format("{:.6g}", value);
}

}  // namespace

Result<FailIf> FailIf::parse(std::string_view given, const Measures& names) {
  const std::string text = without_spaces(given);
  const auto refused = [&](const std::string& why) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("'{}' is no condition, for {}; one is ttft_p95>2s, tokens_per_second<100 or failed_ratio>1%",
                    given.substr(0, 80), why),
        "fail-if");
  };
  FailIf condition;
  condition.text_ = text;
  const size_t at = text.find_first_of("<>");
  if (at == std::string::npos) return refused("it has no <, <=, > or >=");
  const bool or_equal = text.substr(at + 1, 1) == "=";
  if (text[at] == '>') condition.comparison_ = or_equal ? Comparison::kAtLeast : Comparison::kAbove;
  else condition.comparison_ = or_equal ? Comparison::kAtMost : Comparison::kBelow;
  const auto found = std::ranges::find_if(
      names, [name = text.substr(0, at)](const auto& each) { return short_name(each.first) == name; });
  if (found == names.end()) return refused("there is no such number; there are " + names_of(names));
  condition.name_ = found->first;
  const char* begin = text.data() + at + (or_equal ? 2 : 1);
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(begin, end, condition.value_);
  if (error != std::errc() || !std::isfinite(condition.value_)) return refused("a number must follow");
  const double factor = factor_of(condition.name_, std::string_view(rest, static_cast<size_t>(end - rest)));
  if (factor == 0)
    return refused(condition.name_.ends_with("_s") ? "a time ends in s or ms" : "that is no unit of this number");
  condition.value_ *= factor;
  return condition;
}

bool FailIf::holds(const Measures& measured) const {
  const double value = measured.at(name_);
  if (std::isnan(value)) return true;
  switch (comparison_) {
    case Comparison::kAbove:
      return value > value_;
    case Comparison::kAtLeast:
      return value >= value_;
    case Comparison::kBelow:
      return value < value_;
    case Comparison::kAtMost:
      return value <= value_;
  }
  return true;
}

std::string FailIf::sentence(const Measures& measured) const {
  return fmt::format("{} is {}: --fail-if {}", short_name(name_), number_text(name_, measured.at(name_)), text_);
}

}  // namespace runahead
