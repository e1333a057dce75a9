#include "services/tracing/chrome_trace.h"

#include <cmath>

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kFirstProcess = 1;  // viewers take process 0 for the kernel's idle one
constexpr size_t kFirstThread = 1;

// To the nanosecond: what ends where another begins does so in whole numbers, too.
double microseconds(double seconds) { return std::round(seconds * 1e9) / 1e3; }

json event(const char* phase, std::string name, size_t process, size_t lane) {
  return {{"ph", phase}, {"name", std::move(name)}, {"pid", process + kFirstProcess}, {"tid", lane + kFirstThread}};
}

void add_names(const Timeline& timeline, json& events) {
  for (size_t process = 0; process < timeline.processes.size(); ++process) {
    json named = event("M", "process_name", process, 0);
    named["args"] = {{"name", timeline.processes[process].name}};
    events.push_back(std::move(named));
    json sorted = event("M", "process_sort_index", process, 0);
    sorted["args"] = {{"sort_index", process}};
    events.push_back(std::move(sorted));
    const std::vector<std::string>& lanes = timeline.processes[process].lanes;
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      json thread = event("M", "thread_name", process, lane);
      thread["args"] = {{"name", lanes[lane]}};
      events.push_back(std::move(thread));
    }
  }
}

json span_event(const Span& span) {
  json shown = event("X", span.name, span.process, span.lane);
  shown["ts"] = microseconds(span.begin);
  shown["dur"] = microseconds(microseconds(span.end) / 1e6 - microseconds(span.begin) / 1e6);
  shown["cat"] = span.process == 0 ? "request" : span.is_sum ? "sum" : "worker";
  shown["args"] = span.attributes;
  return shown;
}

void add_arrow(const Timeline& timeline, size_t id, json& events) {
  const PageFlow& flow = timeline.flows[id];
  const auto end_of = [&](const char* phase, const Span& span, double at) {
    json shown = event(phase, "K/V", span.process, span.lane);
    shown["ts"] = microseconds(at);
    shown["cat"] = "kv";
    shown["id"] = id + 1;
    shown["args"] = {{"bytes", flow.bytes}};
    return shown;
  };
  events.push_back(end_of("s", timeline.spans[flow.from], flow.sent));
  json received = end_of("f", timeline.spans[flow.to], flow.received);
  received["bp"] = "e";  // it ends in the span that it lies in
  events.push_back(std::move(received));
}

}  // namespace

json chrome_trace(const TracedRequest& request) {
  const Timeline timeline = timeline_of(request);
  json events = json::array();
  add_names(timeline, events);
  for (const Span& span : timeline.spans) events.push_back(span_event(span));
  for (size_t id = 0; id < timeline.flows.size(); ++id) add_arrow(timeline, id, events);
  json about = {{"id", request.id},
                {"kind", request.kind},
                {"model", request.model},
                {"status", request.status},
                {"trace_id", request.trace.trace_id},
                {"begin_unix_ns", std::to_string(request.begin_unix_ns)}};
  return {{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}, {"otherData", std::move(about)}};
}

}  // namespace runahead
