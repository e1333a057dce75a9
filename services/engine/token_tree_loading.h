// The vocabulary of a model as the masks of grammars need it. The file is opened when the first grammar is asked for.
#pragma once

#include "model/grammar/grammars.h"
#include "services/engine/engine_flags.h"

namespace runahead {

grammar::Grammars::MakeTree token_tree_of(ModelFlags model);

}  // namespace runahead
