// Parses a chat template into its tree, with jinja2's grammar and precedence.
#pragma once

#include <string_view>

#include "model/chat_template/ast.h"

namespace runahead::jinja {

// kInvalidModel: malformed; kUnsupported: inheritance, includes, imports; kTooLarge: over limits::kTemplate*.
Result<Block> parse_template(std::string_view source);

}  // namespace runahead::jinja
