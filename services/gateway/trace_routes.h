// GET /v1/requests/{id}/trace and /v1/jobs/{id}/trace: where the time of a request went, as Chrome's trace event JSON. And what
// the gateway knows of a request or a job in the form that traces are made of.
#pragma once

#include <string>

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"
#include "services/tracing/traced_request.h"

namespace runahead {

TracedRequest traced(const RequestEntry& entry, const std::string& model);
// A job of which only the head is known has no trace of a caller.
TracedRequest traced(const JobView& job);

// What is kept of a trace beside a job (JobSubmission::client_json), under "trace".
nlohmann::json stored_trace(const TraceContext& trace);
TraceContext trace_of_job(const std::string& client_json);

// jobs: null if the service keeps none.
void add_trace_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs);

}  // namespace runahead
