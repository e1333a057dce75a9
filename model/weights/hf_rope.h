// RoPE as config.json asks for it, as GGUF's keys and vectors: rope_theta and rope_scaling of transformers 4, rope_parameters of
// 5. Private to model/weights/hf_config.cc. Formulas: transformers' modeling_rope_utils.py.
//   threads  pure.
#pragma once

#include "model/weights/hf_config.h"
#include "model/weights/hf_object.h"

namespace runahead {

// Adds keys of `model`'s architecture, and to model.vectors. context: tokens.
Result<void> read_hf_rope(const HfObject& config, uint64_t context, HfModel& model, GgufKeys& keys);

}  // namespace runahead
