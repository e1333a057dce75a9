// Structured output: what a body says an answer must be, as a grammar (model/grammar). An answer to response_format json_object
// is a JSON object, one to json_schema a text of the schema: no token that leads elsewhere can be chosen. Only an answer that
// max_tokens cuts (finish_reason "length") or a stop string ends may be a beginning of one. Pure; the text lane.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "services/gateway/request/json_reader.h"

namespace runahead {

inline constexpr size_t kSchemaNameBytesMax = 64;  // OpenAI's

// response_format of the body, checked but for the schema itself: does it ask for a structure?
bool take_response_format(JsonReader& reader, std::optional<Error>& error);

// The grammar of a body that asks for a structure at the JSON pointer `format_at`. `body` as text: the order in which a schema
// names its fields, which parsed JSON forgets, is the order of the answer's. Errors name the place in the schema.
Result<std::string> structured_grammar(const std::string& body, const std::string& format_at);

}  // namespace runahead
