// POST /v1/completions and /v1/chat/completions: from the body to the last byte of the answer.
//   threads  the io_context thread; what grows with a text or an answer is done by the text lane.
#pragma once

#include <functional>
#include <string>

#include "base/rng.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/gateway_options.h"
#include "services/gateway/generation.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/text_lane.h"
#include "services/http/http_router.h"

namespace runahead {

// What the routes share. Everything outlives the routes.
struct GatewayContext {
  asio::any_io_executor executor;
  TextLane& text_lane;
  Clock& clock;
  Rng& rng;  // ids, and the seeds of requests that name none
  InferenceService& inference;
  const TextCodec& codec;
  GatewayMetrics& metrics;
  const GatewayOptions& options;

  ServedModel served_model() const;
  std::string new_id(std::string prefix) const;  // and 24 hex digits
};

// Parses, checks, renders and tokenizes a body. The request has a seed and its tokenize_time afterwards. Without
// an endpoint the body says by itself which it is: a chat has messages.
Task<GenerationRequest> prepare_generation(const GatewayContext& context, std::optional<Endpoint> endpoint,
                                           std::string body);

// The prompt's text, where the client wants it in front of a choice's (echo); else empty.
std::string echoed(const GenerationRequest& request, int32_t choice);

void add_generation_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
