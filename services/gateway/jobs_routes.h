// /v1/jobs: POST takes the body of a completion or a chat and answers 202 when the job is durable; GET lists or shows;
// DELETE cancels; GET /v1/jobs/{id}/events streams tokens and the end, and goes on after Last-Event-ID.
// The header Idempotency-Key makes a repeated POST give the first job back.
#pragma once

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

// When a job is over by its own stop strings, for JobServiceEnv; empty if it has none.
StopRule job_stop_rule(const TextCodec& codec, const std::string& client_json);

// jobs: null where the service keeps none; the routes then say so.
void add_jobs_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs);

}  // namespace runahead
