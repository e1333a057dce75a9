// /v1/responses: OpenAI's Responses API over the same generation as chats, and over the job store.
//   POST     answers at once, whole or streamed, and keeps the answer before its end is told, unless "store" is false. With
//            "background" it is a job: durable before it is acknowledged, run again after a restart, its events resumable.
//   GET      one response, also as events (?stream=true&starting_after=N) if it runs in the background; its input items.
//   DELETE   forgets it; POST .../cancel ends one in the background.
//   threads  as generation_routes.
#pragma once

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

// jobs: null where the service keeps none; nothing is stored then.
void add_responses_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs);

}  // namespace runahead
