// The grammar of a call as Qwen3-Coder writes it (xml_call.h): the tool's parameters in the order of its schema, of which those
// that are not required may be left out. A value is bare text up to the tag behind it where its schema says that it is a string;
// else it is JSON of its own schema. Pure; the text lane.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "services/gateway/tools/tool_grammar.h"

namespace runahead {

// "<function=f> ... </function>". What cannot be held so is refused where the tool is strict; else any value will do there.
// A tool that describes no fields gets none.
Result<nlohmann::ordered_json> xml_call_grammar(const GrammarTool& tool);

}  // namespace runahead
