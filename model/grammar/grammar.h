// A grammar as it travels from the gateway to the workers, as text: JSON that says what an answer must be. It is compiled where
// it is asked for (to refuse it) and where it is used (to keep to it).
//   {"json_schema": SCHEMA}      a JSON text by json_schema.h
//   {"json_object": true}        any JSON object
//   {"text": "..."}              these bytes
//   {"text_until": "..."}        any text that ends with these bytes, and has them nowhere before
//   {"sequence": [G, ...]}       one behind the other
//   {"either": [G, ...]}         one of them
//   {"list": G, "between": "..."}  one or more of them
//   {"token": "..."}             the control token that is spelled so, not its letters; no text where there is no such token
//   {"text_with": G, "behind": "...", "once": bool, "not_first": "..."}
//                                any text; behind each of these bytes, or the control token spelled so, stands G. once: behind
//                                the first G nothing follows. not_first: characters that the text does not begin with, nor do
//                                they follow white space at its beginning.
// Pure; any thread.
#pragma once

#include <memory>
#include <string_view>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

// Errors of json_schema.h, Error.param the place in the schema; kInvalidArgument for what is none of the above; kTooLarge over
// limits::kGrammarBytesMax.
Result<std::shared_ptr<const Automaton>> compile(std::string_view text);

}  // namespace runahead::grammar
