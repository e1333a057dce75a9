// The items that a conversation of the Responses API is made of, as they are kept, without ids:
//   message               {"type", "role", "content": [{"type": "input_text" or "output_text", "text"}]}
//   function_call         {"type", "call_id", "name", "arguments"}: a call that the model has made
//   function_call_output  {"type", "call_id", "output"}: what the client's tool gave
// Others (images, files, reasoning, references) are refused by name. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "services/gateway/request/json_reader.h"

namespace runahead {

// The field `input`, checked: a text is a message of the user.
nlohmann::json take_input(JsonReader& reader, std::optional<Error>& error);

// As messages of a chat: calls belong to the assistant's message before them.
void add_messages(const nlohmann::json& items, nlohmann::json& messages);

// Bytes of text in them.
size_t text_bytes_of(const nlohmann::json& items);

}  // namespace runahead
