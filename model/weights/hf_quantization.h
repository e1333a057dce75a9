// quantization_config of config.json: which layout the weights have. Read are weights of 8-bit floats, as transformers ("fp8")
// and llm-compressor ("compressed-tensors", "float-quantized") write them. What such a file says of activations is not done: here
// they stay as a compute mode has them. Private to model/weights/hf_*.
//   threads  pure.
#pragma once

#include "model/weights/hf_config.h"
#include "model/weights/hf_object.h"

namespace runahead {

// kUnsupported names the layout, or the member that says something that is not done.
Result<void> read_hf_quantization(const HfObject& config, HfModel& model, GgufKeys& keys);

}  // namespace runahead
