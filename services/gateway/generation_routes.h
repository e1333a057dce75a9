// POST /v1/completions and /v1/chat/completions: from the body to the last byte of the answer.
//   threads  the io_context thread; what grows with a text or an answer is done by the text lane.
#pragma once

#include <functional>
#include <string>

#include "base/rng.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/gateway_options.h"
#include "services/gateway/generation.h"
#include "services/gateway/generation_memory.h"
#include "services/gateway/openai_response.h"
#include "services/gateway/request_list.h"
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
  RequestList& requests;
  GenerationMemory& memory;
  const GatewayOptions& options;

  ServedModel served_model() const;
  std::string new_id(std::string prefix) const;  // and 24 hex digits
  // The service ends, and what it had to finish is finished: jobs that are left go on at the next start, and so do their readers.
  bool is_over() const;
};

// What a route makes of its body. Called on the text lane.
using ParseGeneration = std::function<Result<GenerationRequest>(const nlohmann::json& body, const ServedModel& model)>;
// OpenAI's. Without an endpoint the body says by itself which it is: a chat has messages.
ParseGeneration openai_body(std::optional<Endpoint> endpoint);

// Parses, checks, renders and tokenizes a body. The request has a seed and its tokenize_time afterwards.
Task<GenerationRequest> prepare_generation(const GatewayContext& context, ParseGeneration parse, std::string body);

// Who calls with unlike keys shares no pages of the prefix cache.
std::string salt_of(const HttpRequest& http, const std::string& asked);

// Gives a prepared request its id, its place in time and its deadline, and hands its choices to the actors.
Result<void> submit(const GatewayContext& context, const HttpRequest& http, const std::string& id,
                    GenerationRequest& request, Generation& generation);

// For the list of requests.
RequestEntry entry_of(const HttpRequest& http, const std::string& id, const char* endpoint,
                      const GenerationRequest& request);

// The prompt's text, where the client wants it in front of a choice's (echo); else empty.
std::string echoed(const GenerationRequest& request, int32_t choice);

void add_generation_routes(HttpRouter& router, const GatewayContext& context);

}  // namespace runahead
