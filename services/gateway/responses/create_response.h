// POST /v1/responses, from the body to the last byte of the answer; and how a response is written out.
//   threads  the io_context thread; what grows with a text is done by the text lane.
#pragma once

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

// For a service without a job store.
std::unexpected<Error> no_store(const char* param);

Task<HttpReply> reply_with(const GatewayContext& context, const JobView& job);

// Answers the exchange. jobs: null where nothing is kept.
Task<void> create_response(const GatewayContext& context, JobsApi* jobs, Exchange& exchange);

}  // namespace runahead
