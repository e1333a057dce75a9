// GemmCheck: whether another way to make products of a shape may take our kernel's place, tried on random operands: its sums are
// ours but for rounding, and a row has the same bits alone, among a few and among many.
//   owner    of the device memory that it needs, until it ends: not of allocate(), so that no pool keeps it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_ops.h"

namespace runahead::cuda {

class GemmCheck {
 public:
  static constexpr int kMany = 2048;  // rows: as many as the engine computes at once
  // Stores or adds, as args say; what failed, or nullptr.
  using Multiply = std::function<const char*(const GemmArgs&)>;

  // Epilogue::kStore or kAdd; ops.gemm without `as_chosen` is our kernel.
  GemmCheck(const CudaOps& ops, const GemmShape& shape);
  ~GemmCheck();
  GemmCheck(const GemmCheck&) = delete;
  GemmCheck& operator=(const GemmCheck&) = delete;

  bool has_room() const { return a_ != nullptr && weights_ != nullptr && out_ != nullptr; }
  // What is wrong with it; "": nothing.
  std::string fault_of(const Multiply& multiply) const;

 private:
  const char* run(const Multiply& multiply, int first, int rows, std::vector<float>& sums) const;

  const CudaOps& ops_;
  GemmShape shape_;
  uint16_t* a_;  // device: [kMany, k]
  uint16_t* weights_;  // device: [n, k]
  float* out_;  // device: [kMany, n]
};

}  // namespace runahead::cuda
