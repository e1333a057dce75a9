// What a model file holds and the forward pass does not read. All of it that could change an answer is refused by name:
// a file either runs as its author meant it or not at all.
//   tensors  every one is read, or the file is refused.
//   keys     every key of the architecture is read (model/model_config says which it asked for), or cannot change a result, or
//            has the value that changes nothing, or the file is refused. Keys that we have never heard of are refused.
//   threads  pure.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "model/model_config.h"

namespace runahead {

// kUnsupported for what we do not compute, kInvalidModel for a layer that the file says it does not have.
// read_keys: without the architecture's prefix.
Result<void> refuse_unread_parts(const Gguf& file, const ModelConfig& config,
                                 const std::set<std::string, std::less<>>& read_keys);

}  // namespace runahead
