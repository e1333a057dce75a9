// Measures the op table's products and attention on one core: what `runahead bench kernels` prints. It knows ops.h
// only, so it measures whatever a mode and an instruction set put behind it.
//   data     seeded. Weights Q4_1, the vocabulary's Q8_0. Of the activations' blocks of 32 every twelfth of each row is
//            three times as large as the others, and 3 % of the rest: 11 % of a row's, 23 % in any of six rows, as
//            measured in SmolLM2's products of 576 (9 % and 36 % in those of 1,536). int8 spends more on those where
//            it does not rotate: here in the vocabulary's.
//   time     of the calling thread on its core (its CPU time): turns of other processes do not count, but what they
//            evict from the caches does.
//   caches   a matrix that fits a cache is in it: what memory costs, bench_decode (bench/engine_bench.h) shows.
//   threads  the caller's; about 250 MB of memory for the shapes of Llama 3 8B.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "bench/engine_bench.h"
#include "kernels/ops.h"

namespace runahead {

struct KernelResult {
  std::string kernel;  // "dot", "gemm", "attention"
  std::string what;  // the shape in words
  int32_t rows = 0;  // tokens of a product, rows of queries of an attention tile; 0: none
  Spread seconds;  // of one call; dot: of as many operations as the instruction does in a second at its best
  double operations = 0;  // a multiply and an add are two; attention: of the pairs that a query sees
  double pairs = 0;  // attention: of a query and a key that it sees
  double of_first = 0;  // attention: pairs a second over those of the first context, measured in turn; else 0
  double peak_operations_per_second = 0;  // of the mode's dot instruction, one core

  double peak_fraction() const { return operations / seconds.median / peak_operations_per_second; }
};

struct KernelBenchOptions {
  std::string name;  // of the shape, for KernelResult::what
  std::span<const int32_t> rows;  // of the products, ascending
  std::span<const int32_t> contexts;  // multiples of kPageTokens, ascending; attention of the last page of each
  int32_t repetitions = 3;  // samples of each
};

using KernelReport = std::function<void(const KernelResult&)>;

// The dot instruction, one layer's products of `shape`, the vocabulary's unless vocab_size is 0, and its attention. A
// call that would take over three seconds (plain C++ on a large model) is left out.
void bench_kernels(const OpTable& ops, const ModelShape& shape, const KernelBenchOptions& options,
                   const KernelReport& report);

// Llama 3 8B: its layers only.
ModelShape llama3_8b_shape();

}  // namespace runahead
