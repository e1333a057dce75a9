#include "kernels/compute_mode.h"

#include <string>

namespace runahead {

std::string_view name(ComputeMode mode) {
  switch (mode) {
    case ComputeMode::kFp32:
      return "fp32";
    case ComputeMode::kBf16:
      return "bf16";
    case ComputeMode::kInt16:
      return "int16";
    case ComputeMode::kInt8:
      return "int8";
  }
  return "unknown";
}

Result<ComputeMode> parse_compute_mode(std::string_view text) {
  for (ComputeMode mode : {ComputeMode::kFp32, ComputeMode::kBf16, ComputeMode::kInt16, ComputeMode::kInt8})
    if (text == name(mode)) return mode;
  return fail(ErrorCode::kUnsupported,
              "unknown compute mode '" + std::string(text) + "'; use auto, fp32, bf16, int16 or int8", "compute");
}

}  // namespace runahead
