// Measures one engine in this process: what `runahead bench prefill|decode` prints. Operations are counted from the
// shapes (a multiply and an add are two), the instruction peak is timed right before and after, so that a share of the
// peak means something on a shared machine too.
//   threads  the caller's; nothing else may use the engine meanwhile.
#pragma once

#include <vector>

#include "model/transformer.h"

namespace runahead {

struct BenchResult {
  int32_t tokens = 0;  // prefill: of the prompt; decode: of the context
  int32_t batch = 1;   // decode: sequences
  double seconds = 0;  // median of the repetitions
  double seconds_min = 0;
  double seconds_max = 0;
  double tokens_per_second = 0;    // from the median
  double giga_ops_per_second = 0;  // from the median
  double peak_fraction = 0;        // of the mode's dot instruction on all threads
};

// Operations of a prefill of `tokens` tokens whose last layer runs for the last token only.
double prefill_operations(const ModelShape& shape, int32_t tokens);

// Prompts are random tokens, new ones every time. kInvalidArgument, kContextOverflow as check_tokens.
Result<BenchResult> bench_prefill(Transformer& engine, int32_t tokens, int32_t repetitions);
// Seconds are of one step of a batch of sequences that have `context` tokens each.
Result<BenchResult> bench_decode(Transformer& engine, int32_t context, int32_t batch, int32_t steps);

}  // namespace runahead
