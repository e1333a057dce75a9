// Measures the op table kernel by kernel on one core: what `runahead bench kernels` prints. It knows ops.h only, so it
// measures whatever a mode and an instruction set put behind it.
//   data     seeded: weights Q4_1 and Q8_0, activations, keys and values uniform in [-1, 1).
//   caches   a matrix that fits a cache is in it: what memory costs, bench_decode (model/bench.h) shows.
//   threads  the caller's.
#pragma once

#include <functional>
#include <string>

#include "kernels/ops.h"
#include "model/bench.h"

namespace runahead {

struct KernelResult {
  std::string kernel;     // "dot", "gemm", "widen", "attention", "rms_norm", "pack_row", "rotate_store"
  std::string what;       // the shape in words
  int32_t rows = 0;       // tokens in the call; attention: query rows; 0: none
  Spread seconds;         // of one call
  double operations = 0;  // a multiply and an add are two; attention: of the pairs that a query sees; 0: not counted
  double bytes = 0;       // read and written, each once
  double peak_operations_per_second = 0;  // of the mode's dot instruction, one core
};

using KernelReport = std::function<void(const KernelResult&)>;

// The layer products of `shape`, its attention and its row kernels. A call that would take over three seconds (plain
// C++ on a large model) is left out. `name`: of the model, for KernelResult::what.
void bench_kernels(const OpTable& ops, const ModelShape& shape, const std::string& name, int32_t repetitions,
                   const KernelReport& report);

// Llama 3 8B: the layers only, as bench_kernels needs them.
ModelShape llama3_8b_shape();

}  // namespace runahead
