#include "bench/rivals/schemes.h"

namespace runahead::rivals {

std::span<const Scheme> schemes() {
  static constexpr Scheme kSchemes[] = {
      {"tsp", "the paper's baseline: even split, all-gather of K and V in every layer, dense scores masked afterwards",
       1, true, run_dense_sequence_parallel},
      {"tsp-causal", "the same with a causal kernel", 1, true, run_causal_sequence_parallel},
      {"ring", "ring attention: blocks of K and V go round, each rank with an early and a late chunk (zigzag)", 2,
       false, run_ring},
      {"paper-kvr", "the paper's chain: each layer's whole prefix is awaited, then relayed", 1, true, run_paper_chain},
      {"pipeline", "layers split over the ranks, chunks streamed through them", 0, true, run_layer_pipeline},
  };
  return kSchemes;
}

}  // namespace runahead::rivals
