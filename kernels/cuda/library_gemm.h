// LibraryGemm: products of a device by cuBLASLt. For each shape of weights it takes one algorithm, for all numbers of rows, and
// only one that has shown on this device that it computes our kernel's product and that a row's bits depend on no other row;
// where there is none, products of the shape stay with our kernel (ADR 25). Host code that knows no CUDA: tests drive it over a
// double of the library and the emulation of kernels/cuda.
//   which    the first that holds of those that its heuristics say for GemmCheck::kMany rows: equal devices with equal libraries
//            agree.
//   threads  one caller at a time, as the op table whose memory and kernels it uses; in that one's order, on its stream.
//   memory   of the device: for gate and up, kSiluRows rows of sums before the activation; while a shape is chosen, its check's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cublaslt_api.h"
#include "kernels/cuda/cuda_ops.h"

namespace runahead::cuda {

class LibraryGemm {
 public:
  static constexpr int kSiluRows = 1024;

  struct Device {
    const CudaOps& ops;  // it outlives this; its gemm() without `as_chosen` is our kernel
    void* stream = nullptr;  // CUDA's handle of the one that `ops` computes on
    int multiprocessors = 0;
  };
  // nullptr where there is no library, or $RUNAHEAD_CUDA_GEMM is "own"; `why` then says which.
  static std::unique_ptr<LibraryGemm> open(const Device& device, std::string& why);
  static bool is_demanded();  // $RUNAHEAD_CUDA_GEMM is set, and not to "own"
  ~LibraryGemm();
  LibraryGemm(const LibraryGemm&) = delete;
  LibraryGemm& operator=(const LibraryGemm&) = delete;

  // As CudaOps::choose_gemm: the name of the way, of library, device and algorithm. It stays where it is.
  const std::string& choose(const GemmShape& shape);
  bool makes(const GemmArgs& args) const;
  // Of args that it makes. What failed, or nullptr: another way would give other bits.
  const char* multiply(const GemmArgs& args) const;
  std::string text() const;

 private:
  struct Way {
    std::string name;  // "": our kernel
    LtAlgo algo{};
    float* sums = nullptr;  // device: [kSiluRows, n]
  };

  LibraryGemm(const Device& device, const CublasLtApi& api, void* handle, void* product);
  Way find_way(const GemmShape& shape);
  std::vector<LtAlgo> ask(const GemmShape& shape) const;
  bool sums_in_one_sequence(const LtHeuristic& found) const;
  bool takes_all_rows(const LtAlgo& algo, const GemmShape& shape) const;
  const char* multiply_by(const LtAlgo& algo, const GemmArgs& args) const;  // stored or added

  const CudaOps& ops_;
  void* stream_;
  std::string prefix_;  // of names
  CublasLtApi api_;
  void* handle_;
  void* product_;  // the library's descriptor: op(A) is A transposed, bf16 with fp32 sums
  std::map<GemmShape, Way> ways_;
  std::string refusals_;  // for text()
};

// The products of a table by the library, once a process; ops.gemm is our kernel so far. Without the library they stay so, and
// ops.gemm_text says why; if $RUNAHEAD_CUDA_GEMM demands it, that is an error: false with `why`. `note` is told what fails later.
bool add_library_gemm(const LibraryGemm::Device& device, CudaOps& ops, void (*note)(const char* failure),
                      std::string& why);

}  // namespace runahead::cuda
