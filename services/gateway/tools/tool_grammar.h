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
  std::string
      otherwise;  // grammar of an answer that does not call, which then is all text or all calls; empty: any text
};
// kUnsupported for schemas that cannot be held.
Result<std::string> tool_grammar(ToolFormat format, std::span<const GrammarTool> tools, const ToolAnswer& answer);

}  // namespace runahead
