// The schemes, each in a file of its own. Tasks of one rank; `run` outlives them.
#pragma once

#include "bench/rivals/rank_run.h"

namespace runahead::rivals {

Task<void> run_dense_sequence_parallel(RankRun& run);   // sequence_parallel.cc
Task<void> run_causal_sequence_parallel(RankRun& run);  // sequence_parallel.cc
Task<void> run_ring(RankRun& run);                      // ring.cc
Task<void> run_layer_pipeline(RankRun& run);            // layer_pipeline.cc

enum class SendOwn { kAtOnce, kBehindPrefix, kBehindAttention };

// What our chain does otherwise than the paper's, and what both could leave out.
struct ChainIdeas {
  bool posted_receives = true;  // of all layers, in advance; else of a layer when the rank reaches it
  bool cut_through = true;  // pages of the prefix go on as they come; else when all are there
  SendOwn send_own = SendOwn::kAtOnce;  // keys and values of the own chunk
  bool attend_as_it_comes = true;  // to the prefix; else when all of it is there
  bool short_last_layer = true;  // K,V only, and of the last rank one row; else all of it, everywhere
  bool causal = true;  // else all scores of the own chunk, masked afterwards; only without attend_as_it_comes
};
inline constexpr ChainIdeas kPapersChain{
    .posted_receives = false, .cut_through = false, .send_own = SendOwn::kBehindPrefix, .attend_as_it_comes = false};
Task<void> run_chain(RankRun& run, ChainIdeas ideas);  // chain.cc

// What a dense kernel computes for nothing: scores of pages behind a tile's own, of [0, pages). The sums are begun anew at page 0
// by who attends next. sequence_parallel.cc
void attend_masked(RankRun& run, int32_t layer, Hidden& x, int32_t pages);

}  // namespace runahead::rivals
