// Timeline: where the time of one request went, as spans: the request's own on the coordinator, and each worker's. It is the one
// source of what a trace viewer draws (chrome_trace.h) and of what a collector is sent (otlp.h). Pure.
//
// Begin and end of a span are seconds since the request's first byte, on the coordinator's clock, for clocks of two machines are
// never compared (actors/coordinator/ttft_stages.h): a worker's work ends when its report has come, and began as much earlier
// as it says to have taken. A span lies within its parent, and spans of one lane within each other or apart.
//
// Workers report sums, not instants: the parts of a rank's work (waiting for its lane, computing, waiting for K/V, sampling) are
// laid end to end within it, though they alternate layer by layer. Those spans say so (Span::is_sum).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "services/tracing/traced_request.h"

namespace runahead {

struct TimelineProcess {
  std::string name;  // "coordinator", "rank 1: worker-b", "decode: worker-d"
  std::vector<std::string> lanes;
};

struct Span {
  std::string name;
  size_t process = 0, lane = 0;  // of Timeline::processes, and of its lanes
  std::optional<size_t> parent;  // of Timeline::spans, before this one; none: the request itself
  double begin = 0, end = 0;
  bool is_sum = false;
  nlohmann::json attributes = nlohmann::json::object();  // "runahead.rank": numbers and strings
};

// K/V that went from one span to another.
struct PageFlow {
  size_t from = 0, to = 0;  // of Timeline::spans
  double sent = 0, received = 0;  // within those; sent <= received
  uint64_t bytes = 0;
};

struct Timeline {
  std::vector<TimelineProcess> processes;  // the coordinator, the ranks in order, the decode worker
  std::vector<Span> spans;  // the request first
  std::vector<PageFlow> flows;  // one for each hop of the chain
};

Timeline timeline_of(const TracedRequest& request);

}  // namespace runahead
