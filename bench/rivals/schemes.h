// The schemes, each in a file of its own. Tasks of one rank; `run` outlives them.
#pragma once

#include "bench/rivals/rank_run.h"

namespace runahead::rivals {

Task<void> run_dense_sequence_parallel(RankRun& run);   // sequence_parallel.cc
Task<void> run_causal_sequence_parallel(RankRun& run);  // sequence_parallel.cc
Task<void> run_ring(RankRun& run);                      // ring.cc
Task<void> run_paper_chain(RankRun& run);               // paper_chain.cc
Task<void> run_layer_pipeline(RankRun& run);            // layer_pipeline.cc

}  // namespace runahead::rivals
