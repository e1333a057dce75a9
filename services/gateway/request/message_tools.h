// Anthropic's tools as OpenAI's: what a body says of them becomes a chat's fields and messages. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "services/gateway/request/json_reader.h"

namespace runahead {

// `tools` and `tool_choice` of the body, into the chat.
void take_message_tools(JsonReader& reader, nlohmann::json& chat, std::optional<Error>& error);

// One message of user or assistant, as one or more of the chat: tool_result blocks become messages of role tool before the rest,
// tool_use blocks tool_calls. Other blocks stay, for the chat's own check.
void add_chat_messages(const nlohmann::json& message, const std::string& path, nlohmann::json& messages,
                       std::optional<Error>& error);

}  // namespace runahead
