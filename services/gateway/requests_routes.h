// /v1/requests: GET lists the completions, chats and messages in work and the last that ended, or shows one; DELETE ends one
// that is in work. Who has a key sees the requests of that key. Jobs are /v1/jobs.
#pragma once

#include "services/gateway/generation_routes.h"

namespace runahead {

void add_requests_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
