// What a GGUF file is that is no language model: adapters, projectors, importance matrices and the like share the format and
// stand in the same download lists. Each is called by its name, with what to take instead.
#pragma once

#include "model/weights/gguf.h"

namespace runahead {

// kUnsupported if the file says that it is something else.
Result<void> refuse_other_kinds(const Gguf& file);

}  // namespace runahead
