// POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API over the same generation as OpenAI's.
//   threads  as generation_routes.
#pragma once

#include "services/gateway/generation_routes.h"

namespace runahead {

void add_messages_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
