// /v1/jobs: POST takes the body of a completion or a chat and answers 202 when the job is durable; GET lists or shows;
// DELETE cancels; GET /v1/jobs/{id}/events streams tokens and the end, and goes on after Last-Event-ID.
// The header Idempotency-Key makes a repeated POST give the first job back.
#pragma once

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

// What every request is as a job: its only choice, from this caller. Without kind and client_json.
JobSubmission job_submission(const GatewayContext& context, const HttpRequest& http, const GenerationRequest& request);
// The request's idempotency key with the digest of its body; nothing to do without one.
Task<void> take_idempotency_key(const GatewayContext& context, const HttpRequest& http, const std::string& body,
                                JobSubmission& submission);

// A completion or a chat as a job, all but its key. kUnsupported: what no job can be.
Result<JobSubmission> openai_job(const GatewayContext& context, const HttpRequest& http,
                                 const GenerationRequest& request);
// What POST to its endpoint would have answered. The job has succeeded.
nlohmann::json openai_answer(const JobView& job, const TextCodec& codec);

// jobs: null where the service keeps none; the routes then say so.
void add_jobs_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs);

}  // namespace runahead
