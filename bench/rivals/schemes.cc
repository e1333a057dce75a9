#include "bench/rivals/schemes.h"

namespace runahead::rivals {

std::span<const Scheme> schemes() {
  static constexpr Scheme kSchemes[] = {
      {"tsp", "the paper's baseline: even split, all-gather of K and V in every layer, dense scores masked afterwards",
       true, run_dense_sequence_parallel},
      {"tsp-causal", "the same with a causal kernel", true, run_causal_sequence_parallel},
      {"paper-kvr", "the paper's chain: each layer's whole prefix is awaited, then relayed", true, run_paper_chain},
      {"pipeline", "layers split over the ranks, chunks streamed through them", false, run_layer_pipeline},
  };
  return kSchemes;
}

}  // namespace runahead::rivals
