#include "services/tracing/otlp.h"

#include <cmath>

namespace runahead {
namespace {

using nlohmann::json;

constexpr int kInternal = 1, kServer = 2;  // Span.SpanKind
constexpr int kStatusError = 2;  // Status.StatusCode

// OTLP's JSON writes whole numbers of 64 bits as text.
json value_of(const json& value) {
  if (value.is_string()) return {{"stringValue", value}};
  if (value.is_boolean()) return {{"boolValue", value}};
  if (value.is_number_integer()) return {{"intValue", std::to_string(value.get<int64_t>())}};
  return {{"doubleValue", value}};
}

json attributes_of(const json& named) {
  json list = json::array();
  for (const auto& [key, value] : named.items()) list.push_back({{"key", key}, {"value", value_of(value)}});
  return list;
}

json gen_ai_attributes(const TracedRequest& request) {
  json named = {{"gen_ai.operation.name", operation_name(request)},
                {"gen_ai.provider.name", "runahead"},
                {"gen_ai.request.model", request.model},
                {"gen_ai.response.model", request.model},
                {"gen_ai.response.id", request.id},
                {"gen_ai.usage.input_tokens", request.prompt_tokens},
                {"gen_ai.usage.output_tokens", request.completion_tokens}};
  if (request.report) named["gen_ai.usage.cache_read.input_tokens"] = request.report->cached_tokens;
  if (request.error) named["error.type"] = name(request.error->code);
  return named;
}

void add_spans(const TracedRequest& request, Rng& span_ids, json& spans) {
  const Timeline timeline = timeline_of(request);
  std::vector<std::string> ids;  // [spans]
  const auto at = [&](double seconds) {
    return std::to_string(request.begin_unix_ns + static_cast<int64_t>(std::llround(seconds * 1e9)));
  };
  for (const Span& span : timeline.spans) {
    const bool is_request = !span.parent;
    ids.push_back(is_request ? request.trace.span_id : new_span_id(span_ids));
    json attributes = span.attributes;
    if (is_request) attributes.update(gen_ai_attributes(request));
    if (span.is_sum) attributes["runahead.is_sum"] = true;
    json sent = {{"traceId", request.trace.trace_id},
                 {"spanId", ids.back()},
                 {"name", is_request ? operation_name(request) + (" " + request.model) : span.name},
                 {"kind", is_request ? kServer : kInternal},
                 {"startTimeUnixNano", at(span.begin)},
                 {"endTimeUnixNano", at(span.end)},
                 {"flags", 1},
                 {"attributes", attributes_of(attributes)}};
    const std::string parent = is_request ? request.trace.parent_span_id : ids[*span.parent];
    if (!parent.empty()) sent["parentSpanId"] = parent;
    if (is_request && request.error) sent["status"] = {{"code", kStatusError}, {"message", request.error->message}};
    spans.push_back(std::move(sent));
  }
}

}  // namespace

OtlpBatch otlp_batch(const OtlpResource& resource, std::span<const std::shared_ptr<const TracedRequest>> requests,
                     Rng& span_ids) {
  json spans = json::array();
  for (const auto& request : requests) add_spans(*request, span_ids, spans);
  const auto count = static_cast<int64_t>(spans.size());
  json scope = {{"scope", {{"name", "runahead"}, {"version", resource.version}}}, {"spans", std::move(spans)}};
  json named = {{"service.name", resource.service_name},
                {"service.version", resource.version},
                {"service.instance.id", resource.instance}};
  json of_process = {{"resource", {{"attributes", attributes_of(named)}}},
                     {"scopeSpans", json::array({std::move(scope)})}};
  return {.body = {{"resourceSpans", json::array({std::move(of_process)})}}, .spans = count};
}

}  // namespace runahead
