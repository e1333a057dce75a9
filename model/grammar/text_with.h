// Any text with a marker in it, as nodes of an automaton: what an answer is in which something else may begin. Pure.
#pragma once

#include <string_view>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

struct TextWith {
  Node found;  // behind the marker, as text or as the control token spelled so
  Node again;  // goes on as at the beginning
  Node end;    // the text may end here, but within no marker that is whole
};

// `marker` is not empty. not_first: characters that the text does not begin with, nor do they follow white space at its
// beginning.
TextWith write_text(Automaton& automaton, std::string_view marker, std::string_view not_first, Node from);

// Any text up to the marker, as text: the node behind it.
Node write_text_until(Automaton& automaton, std::string_view marker, Node from);

}  // namespace runahead::grammar
