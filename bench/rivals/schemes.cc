#include "bench/rivals/schemes.h"

namespace runahead::rivals {
namespace {

// The chain without one of its ideas.
Task<void> late_receives(RankRun& run) { return run_chain(run, {.posted_receives = false}); }
Task<void> whole_prefixes(RankRun& run) { return run_chain(run, {.cut_through = false}); }
Task<void> late_sends(RankRun& run) { return run_chain(run, {.send_own = SendOwn::kBehindAttention}); }
Task<void> late_attention(RankRun& run) { return run_chain(run, {.attend_as_it_comes = false}); }
Task<void> full_last_layer(RankRun& run) { return run_chain(run, {.short_last_layer = false}); }
Task<void> dense(RankRun& run) { return run_chain(run, {.attend_as_it_comes = false, .causal = false}); }

}  // namespace

std::span<const Scheme> schemes() {
  static constexpr Scheme kSchemes[] = {
      {"tsp", "the paper's baseline: even split, all-gather of K and V in every layer, dense scores masked afterwards",
       1, true, run_dense_sequence_parallel},
      {"tsp-causal", "the same with a causal kernel", 1, true, run_causal_sequence_parallel},
      {"ring", "ring attention: blocks of K and V go round, each rank with an early and a late chunk (zigzag)", 2,
       false, run_ring},
      {"paper-kvr", "the paper's chain: each layer's whole prefix is received when the rank is there, then relayed", 1,
       true, [](RankRun& run) { return run_chain(run, kPapersChain); }},
      {"pipeline", "layers split over the ranks, chunks streamed through them", 0, true, run_layer_pipeline},
      {"chain", "ours, without a service around it", 1, true, [](RankRun& run) { return run_chain(run, {}); }},
      {"chain-late-receives", "ours, but receives are posted when a rank reaches the layer", 1, true, late_receives},
      {"chain-whole-prefixes", "ours, but a prefix goes on when all of it is there", 1, true, whole_prefixes},
      {"chain-late-sends", "ours, but own K and V leave behind attention", 1, true, late_sends},
      {"chain-late-attention", "ours, but attention begins when the whole prefix is there", 1, true, late_attention},
      {"chain-full-last-layer", "ours, but with all of the last layer", 1, true, full_last_layer},
      {"chain-dense", "chain-late-attention with dense scores, masked afterwards", 1, true, dense},
  };
  return kSchemes;
}

}  // namespace runahead::rivals
