// How an automaton reads a JSON string whose text a regular expression finds something in, as JSON Schema's `pattern` says:
// ECMAScript's expressions, without what no automaton can do (look-around, back-references) and what nobody writes (\p, \c).
// ^ and $ stand at the ends of the expression or of its alternatives. Pure.
#pragma once

#include <string_view>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

// The text alone, without quotes. kInvalidArgument for a malformed expression, kUnsupported with what cannot be done.
Result<void> read_pattern(Automaton& automaton, Node from, std::string_view pattern, Node to);

}  // namespace runahead::grammar
