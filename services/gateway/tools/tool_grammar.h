// The grammar of an answer that calls tools (model/grammar/grammar.h), in the form that its model writes and ToolCallParser
// reads. Pure; the text lane.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "base/result.h"
#include "services/gateway/tools/tool_format.h"

namespace runahead {

struct GrammarTool {
  std::string name;
  nlohmann::ordered_json parameters;  // its schema
  bool strict = false;  // else any object will do where the schema cannot be held
  std::string field;  // where the request has the schema, for errors
};

struct ToolAnswer {
  bool must_call = false;  // else text in which calls may stand
  bool many = false;  // one or more of them
  // Grammar of an answer that does not call: the answer is that, or calls and nothing else. Empty: any text.
  std::string otherwise;
};
// kUnsupported for schemas that cannot be held.
Result<std::string> tool_grammar(ToolFormat format, std::span<const GrammarTool> tools, const ToolAnswer& answer);

}  // namespace runahead
