// A request of Anthropic's Messages API as a chat. Pure; any thread.
//   read      text, tools (message_tools.h), their calls and answers: images, documents and thinking are refused by name.
//   also      runahead, cache_salt and seed, as in OpenAI's bodies.
// Source: docs.anthropic.com, "Messages", version 2023-06-01.
#pragma once

#include <nlohmann/json.hpp>

#include "services/gateway/request/openai_request.h"

namespace runahead {

// kCountTokens: only model, system and messages matter, and max_tokens may be absent.
enum class MessagesUse { kAnswer, kCountTokens };
Result<GenerationRequest> parse_messages(const nlohmann::json& body, const ServedModel& model, MessagesUse use);

}  // namespace runahead
