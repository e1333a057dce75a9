// Measures one engine in this process: what `runahead bench prefill|decode` prints. Operations (a multiply and an add
// are two) and bytes are counted from the shapes. The peaks of the machine that they are held against, its dot
// instruction and its memory, are timed between the repetitions, so that a share means something on a shared machine. They are
// the CPU's: of an engine on a GPU there are times alone.
//   threads  the caller's; nothing else may use the engine meanwhile.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/transformer/transformer.h"

namespace runahead {

// Of one measurement's repetitions: shared machines have outliers on one side only, so look at all five.
struct Spread {
  double min = 0, lower_quartile = 0, median = 0, upper_quartile = 0, max = 0;
};
Spread spread_of(std::vector<double> values);  // of at least one; quartiles are interpolated

double seconds_of(const std::function<void()>& work);

// The most operations a second seen of `ops`' dot instruction, on `threads` threads that do nothing else.
class InstructionPeak {
 public:
  InstructionPeak(const OpTable& ops, ThreadTeam& team) : ops_(ops), team_(team) {}
  void measure();  // about 5 ms; call it between the repetitions
  double operations_per_second() const { return best_; }

 private:
  const OpTable& ops_;
  ThreadTeam& team_;
  double best_ = 0;
};

// The engine as one of the CPU; nullptr: it is of a GPU.
const Transformer* cpu_engine(const Engine& engine);

struct BenchResult {
  int32_t tokens = 0;  // that are processed: a prompt's, or one of each sequence of a decode step
  int32_t context = 0;  // tokens before them
  Spread seconds;  // of a prefill, or of one decode step
  double operations = 0, bytes = 0;  // of it; bytes only of decode on the CPU: weights and K/V, each read once
  double peak_operations_per_second = 0;  // of the mode's dot instruction on all threads; 0: of a GPU
  double peak_bytes_per_second = 0;  // of reading memory on all threads; only of decode on the CPU

  double tokens_per_second() const { return per_second(tokens); }
  double per_second(double amount) const { return amount / seconds.median; }
};

// Operations of a prefill of `tokens` tokens whose last layer runs for the last token only.
double prefill_operations(const ModelShape& shape, int32_t tokens);
// Operations of one token with `keys` tokens to attend to, its own among them.
double decode_operations(const ModelShape& shape, double keys);

// Prompts are random tokens, new ones every time. kInvalidArgument, kContextOverflow as check_tokens.
Result<BenchResult> bench_prefill(Engine& engine, int32_t tokens, int32_t repetitions);
// One result a batch size: steps of so many sequences that have `context` tokens each, 0 or more.
Result<std::vector<BenchResult>> bench_decode(Engine& engine, int32_t context, std::span<const int32_t> batches,
                                              int32_t steps);

}  // namespace runahead
