// GET /v1/models[/{id}], POST /tokenize, /detokenize, /apply-template: the model and its text, without generating.
#pragma once

#include "services/gateway/generation_routes.h"

namespace runahead {

void add_text_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
