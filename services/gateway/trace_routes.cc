#include "services/gateway/trace_routes.h"

#include "base/wall_clock.h"
#include "services/http/api_error.h"
#include "services/tracing/chrome_trace.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int64_t kNanosecondsPerMs = 1'000'000;
constexpr size_t kRequestBytes = 4000, kRankBytes = 3500;  // about, as JSON

// Of something that ended, or has not, and took so long until now.
int64_t began(int64_t end_unix_ns, double elapsed_seconds) {
  return end_unix_ns - static_cast<int64_t>(elapsed_seconds * 1e9);
}

Task<HttpReply> reply(const GatewayContext& context, TracedRequest request) {
  const size_t ranks = request.report ? request.report->ranks.size() : 0;
  const auto write = [&]() -> std::string { return to_text(chrome_trace(request)); };
  HttpReply written;
  written.body = co_await context.text_lane.render(kRequestBytes + kRankBytes * ranks, write);
  written.headers.emplace_back("Content-Disposition", "inline; filename=\"" + request.id + ".trace.json\"");
  co_return written;
}

Task<HttpReply> of_request(const GatewayContext& context, Result<RequestList::Row> found) {
  const RequestList::Row row = CO_TRY(found);
  co_return co_await reply(context, traced(*row, context.options.model_name));
}

Task<HttpReply> of_job(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await jobs.find(std::move(owner), std::move(id));
  const JobView job = CO_TRY(found);
  co_return co_await reply(context, traced(job));
}

Task<HttpReply> no_jobs() {
  co_return fail(ErrorCode::kUnsupported, "this service keeps no jobs; start it with a job store");
}

}  // namespace

TracedRequest traced(const RequestEntry& entry, const std::string& model) {
  return {.id = entry.id,
          .kind = entry.endpoint,
          .model = model,
          .status = entry.status,
          .trace = entry.trace,
          .begin_unix_ns = entry.received_unix_ns,
          .elapsed_seconds = entry.elapsed_seconds,
          .prompt_tokens = entry.prompt_tokens,
          .completion_tokens = entry.completion_tokens,
          .error = entry.error,
          .report = entry.report};
}

// The report's times are those of its last run.
TracedRequest traced(const JobView& job) {
  const JobHead& head = job.head;
  const json stored = json::parse(job.client_json, nullptr, false);
  TracedRequest request{.id = head.id,
                        .kind = head.kind,
                        .model = stored.is_object() ? stored.value("model", "") : std::string(),
                        .status = std::string(name(head.status)),
                        .trace = trace_of_job(job.client_json),
                        .begin_unix_ns = head.created_unix_ms * kNanosecondsPerMs,
                        .prompt_tokens = head.prompt_tokens,
                        .completion_tokens = head.completion_tokens,
                        .error = head.error};
  const int64_t end = head.ended_unix_ms > 0 ? head.ended_unix_ms * kNanosecondsPerMs : unix_time_ns();
  if (job.result && job.result->finished) {
    request.report = job.result->finished->report;
    request.elapsed_seconds = job.result->finished->total_seconds;
    request.begin_unix_ns = began(end, request.elapsed_seconds);
  } else {
    request.elapsed_seconds = static_cast<double>(end - request.begin_unix_ns) / 1e9;
  }
  return request;
}

json stored_trace(const TraceContext& trace) {
  return {{"trace_id", trace.trace_id},
          {"span_id", trace.span_id},
          {"parent_span_id", trace.parent_span_id},
          {"sampled", trace.sampled}};
}

TraceContext trace_of_job(const std::string& client_json) {
  const json stored = json::parse(client_json, nullptr, false);
  if (!stored.is_object() || !stored.contains("trace") || !stored["trace"].is_object()) return {};
  const json& trace = stored["trace"];
  return {.trace_id = trace.value("trace_id", ""),
          .span_id = trace.value("span_id", ""),
          .parent_span_id = trace.value("parent_span_id", ""),
          .sampled = trace.value("sampled", false)};
}

void add_trace_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs) {
  router.answer("GET", "/v1/requests/{id}/trace", [&context](const HttpRequest& request) {
    return of_request(context, context.requests.find(request.owner, request.path_params.at("id")));
  });
  router.answer("GET", "/v1/jobs/{id}/trace", [&context, jobs](const HttpRequest& request) {
    return jobs == nullptr ? no_jobs() : of_job(context, *jobs, request.owner, request.path_params.at("id"));
  });
}

}  // namespace runahead
