// What the tests say to the double of cuBLASLt (cublaslt_double.cc), by dlsym in the library that was opened.
#pragma once

namespace runahead::cuda {

// cublaslt_double_set(what, value): from now on, in this process. Of algorithms the first `value` have the fault.
enum class CublasLtDouble : int {
  kVersion = 0,
  kHasNoDevice = 1,  // 1: cublasLtCreate fails
  kAlgorithms = 2,  // as many as heuristics give
  kSplitK = 3,
  kNeedWorkspace = 4,
  kSumByRows = 5,  // in an order that depends on how many rows there are
  kAreWrong = 6,  // a sum misses its last product
  kFailForFew = 7,  // rows: 16 and less
  kProducts = 8,  // made since it was set
  kRefuseSome = 9,  // numbers of rows: 77
};
using CublasLtDoubleSet = void (*)(int what, int value);
using CublasLtDoubleGet = int (*)(int what);  // cublaslt_double_get

}  // namespace runahead::cuda
