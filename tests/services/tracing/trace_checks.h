// What holds for every trace, whatever the reports said.
#pragma once

#include <gtest/gtest.h>

#include "services/tracing/chrome_trace.h"

namespace runahead {

// Spans of one lane lie within each other or apart, and all within the request; flows are paired, begin and end in a span, and
// go forward.
inline void expect_sound(const nlohmann::json& trace) {
  using nlohmann::json;
  constexpr double kHalfNanosecond = 0.0005;
  std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> lanes;
  std::map<int, std::pair<const json*, const json*>> flows;
  std::set<int> named;
  double end = 0;
  for (const json& event : trace["traceEvents"]) {
    const std::string phase = event["ph"];
    if (phase == "M" && event["name"] == "process_name") named.insert(event["pid"].get<int>());
    if (phase == "s") flows[event["id"]].first = &event;
    if (phase == "f") flows[event["id"]].second = &event;
    if (phase != "X") continue;
    const double begin = event["ts"], until = begin + event["dur"].get<double>();
    if (lanes.empty()) end = until;
    EXPECT_GE(begin, 0);
    EXPECT_GE(until, begin);
    EXPECT_LE(until, end + kHalfNanosecond) << event;
    for (const auto& [from, to] : lanes[{event["pid"], event["tid"]}]) {
      const bool within = begin >= from - kHalfNanosecond && until <= to + kHalfNanosecond;
      const bool apart = begin >= to - kHalfNanosecond || until <= from + kHalfNanosecond;
      EXPECT_TRUE(within || apart) << event;
    }
    lanes[{event["pid"], event["tid"]}].emplace_back(begin, until);
    EXPECT_TRUE(named.contains(event["pid"].get<int>()));
  }
  const auto in_a_span = [&](const json& event) {
    const double at = event["ts"];
    return std::ranges::any_of(lanes[{event["pid"], event["tid"]}], [&](const auto& span) {
      return at >= span.first - kHalfNanosecond && at <= span.second + kHalfNanosecond;
    });
  };
  for (const auto& [id, flow] : flows) {
    ASSERT_TRUE(flow.first != nullptr && flow.second != nullptr) << id;
    EXPECT_LE((*flow.first)["ts"].get<double>(), (*flow.second)["ts"].get<double>());
    EXPECT_TRUE(in_a_span(*flow.first) && in_a_span(*flow.second)) << *flow.first << *flow.second;
  }
}

}  // namespace runahead
