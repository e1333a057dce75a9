// Matrices that a folder of Hugging Face's holds in a form that no GGUF file has, decoded into one that is packed: F8_E4M3 with
// scales of blocks, of rows, or of the whole (`NAME_scale`; blocks as runahead.float8.block says). Each weight is the product of
// its value and its scale in fp32, rounded to BF16: what transformers makes of it (`dequantize`).
//   memory   what is decoded lies in `decoded`, as long as the caller keeps it; other matrices are views of the file.
//   threads  any, each with its own `decoded`.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/weights/gguf.h"

namespace runahead {

using DecodedBytes = std::deque<std::vector<std::byte>>;

// kInvalidModel: a tensor is missing, or its scales are of another shape or no numbers.
Result<QuantMatrixView> packable_matrix(const Gguf& file, const std::string& name, DecodedBytes& decoded);

}  // namespace runahead
