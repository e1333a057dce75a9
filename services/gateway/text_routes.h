// GET /v1/models[/{id}], POST /tokenize, /detokenize, /apply-template: the model and its text, without generating.
#pragma once

#include "services/gateway/generation_routes.h"

namespace runahead {

// kTooLarge for a text to tokenize of over 4 MiB, a million tokens: a single word of it takes 40 bytes a byte.
Result<void> check_prompt_bytes(size_t bytes);

void add_text_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
