// The header of one .safetensors file: eight bytes of length, JSON with each tensor's type, shape and place, then the tensors.
// Nothing in it is trusted: the header is bounded, its JSON is read as it comes (nothing is built that a file could make large),
// a name counts once, and the tensors lie one behind the other, without gaps, to the last byte, as the format demands.
//   memory  the bytes point into the file, whose mapping must outlive them.
//   threads pure.
// Format: README of github.com/huggingface/safetensors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace runahead {

struct SafeTensor {
  std::string name;
  std::string type;  // as the file spells it: "BF16", "F8_E4M3", "I64"
  int32_t num_dims = 0;  // 0 to 4
  std::array<int64_t, 4> shape{1, 1, 1, 1};  // the last of num_dims is contiguous
  std::span<const std::byte> bytes;

  int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
};

// In the order of the bytes. kInvalidModel with `name`, the file's, and what is wrong.
Result<std::vector<SafeTensor>> read_safetensors(std::span<const std::byte> file, const std::string& name);

}  // namespace runahead
