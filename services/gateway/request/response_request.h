// OpenAI's Responses API, the way in: a body of POST /v1/responses as a chat and what a response remembers of it. Text and
// function tools: images, files, audio, other tools, prompts by id and conversations are refused by name. Pure; any thread.
//   items    services/gateway/request/response_items.h.
//   also     runahead, cache_salt, seed, top_k and min_p, as in the other bodies.
// Source: platform.openai.com/docs/api-reference/responses, as openai-python 2.x has it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "services/gateway/request/openai_request.h"

namespace runahead {

struct ResponseRequest {
  nlohmann::json chat;  // a chat's body without its messages
  nlohmann::json input;  // items
  nlohmann::json shown;  // what the response repeats: instructions, temperature, metadata and so on
  std::string instructions;
  std::string previous_id;  // empty: a conversation begins
  bool store = true, background = false, stream = false;
  bool structured = false;  // text.format asks for a structure
};

Result<ResponseRequest> parse_response(const nlohmann::json& body, const ServedModel& model);

// The chat of a request that goes on after `earlier` items, and its errors in the words of its own body.
Result<GenerationRequest> response_chat(const ResponseRequest& request, const nlohmann::json& earlier,
                                        const ServedModel& model);
Error in_words_of_responses(Error error);

}  // namespace runahead
