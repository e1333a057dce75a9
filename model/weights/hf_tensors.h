// The tensors of a folder of Hugging Face's under GGUF's names, and as its converters leave them: Gemma's gains are 1 + weight,
// the rows of Falcon's Q, K and V come kind by kind, StableLM's gains of each head are one tensor. All else are the file's bytes.
//   threads  pure.
#pragma once

#include <string>
#include <vector>

#include "model/weights/gguf.h"
#include "model/weights/hf_config.h"
#include "model/weights/safetensors.h"

namespace runahead {

// `name`: the folder's, for messages. What is changed or bears a new name lies in `memory`. kUnsupported for a type that is not
// read and for a tensor that the forward pass does not use.
Result<std::vector<TensorInfo>> hf_tensors(const HfModel& model, const std::vector<SafeTensor>& tensors,
                                           const std::string& name, GgufMemory& memory);

}  // namespace runahead
