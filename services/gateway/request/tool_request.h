// What a request says of tools: `tools`, `tool_choice` and `parallel_tool_calls` of a chat, calls and their answers in its
// messages. Pure; the text lane.
//   none       tool_choice "none": the model is shown no tools, and its answer is text, whatever it looks like.
//   grammar    tool_choice "required" or a named function, a tool with "strict" and parallel_tool_calls false hold the answer to
//              a grammar. A tool without "strict" whose schema no grammar can hold gets any JSON object there.
//   structure  beside tools, an answer of a structure is that or calls, nothing else; and calls where it must call.
//   refused    by name: tools where the model's template shows none or has calls that are not read, and "strict" schemas that
//              cannot be held.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "services/gateway/request/json_reader.h"
#include "services/gateway/request/text_codec.h"
#include "services/gateway/tools/tool_call_parser.h"

namespace runahead {

inline constexpr size_t kToolsMax = 128;  // of a request, and calls of a message: OpenAI's
inline constexpr size_t kWordBytesMax = 256;  // type, id

struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  Choice choice = Choice::kNone;  // kNone also where there are no tools
  std::string named;  // kNamed
  bool parallel = true;  // more than one call in an answer
  bool strict = false;  // of any tool
  bool structured = false;  // an answer that does not call is of a structure

  bool holds_to_grammar() const {
    return choice != Choice::kNone && (choice != Choice::kAuto || strict || !parallel || structured);
  }
  // ---- by prepare_tools() ----
  nlohmann::ordered_json shown;  // to the model, as templates know them; null: none
  std::optional<ToolReading> reading;  // how calls are found in the answer; nothing: all is text
};

// The fields, checked but for the schemas.
ToolUse take_tools(JsonReader& reader, std::optional<Error>& error);

// Of an assistant's message: [{"id", "type", "function": {"name", "arguments": {...}}}], as templates know them.
nlohmann::ordered_json take_tool_calls(JsonReader& message, std::optional<Error>& error);

// With `body` as text, OpenAI's or Anthropic's: the order in which it names fields, which parsed JSON forgets, is what the model
// is shown and has to keep to. Orders the arguments of calls in `messages`, too. Gives the grammar of the whole answer, where
// `structure` is that of an answer without calls; empty: none.
Result<std::string> prepare_tools(ToolUse& tools, nlohmann::ordered_json& messages, const std::string& body,
                                  const TextCodec& codec, const std::string& structure = {});

}  // namespace runahead
