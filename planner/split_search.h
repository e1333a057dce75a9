// SplitSearch: KVR-S, the paper's hierarchical grid search over measured TTFT (4.2). It asks for one measurement after the
// other; the next depends on nothing but the answers, so a search that was broken off goes on when its answers are given again.
//
// From even chunks: at each stride every cut is tried one stride up and down, alone and, up to three cuts, together with the
// others (the paper's cell of the grid); the best is the next middle, until none is better; then the stride is halved, down to
// one page. The paper tries all 5^(p - 1) cells at every p, 152 hours for an entry of 8 ranks.
//   pure     no clock; one search, one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "planner/partition.h"

namespace runahead {

class SplitSearch {
 public:
  // ranks: at most ranks_max(context_len).
  SplitSearch(int32_t context_len, int32_t ranks);

  // The cuts to measure next; nothing when the search has ended. Asked again, the same.
  std::optional<std::vector<int32_t>> next();
  // What the cuts of next() took.
  void measured(double ttft_seconds);

  const std::vector<int32_t>& best_cuts() const { return best_; }
  double best_seconds() const { return best_seconds_; }
  int64_t measurements() const { return static_cast<int64_t>(known_.size()); }
  // Of the way from the first stride to the last, for a bar: 0 to 1.
  double progress() const;

 private:
  void begin_round();

  int32_t context_len_;
  int32_t first_stride_, stride_;  // tokens; 0: it has ended
  std::vector<int32_t> best_;
  double best_seconds_ = 0;
  bool better_ = false;  // than at the round's begin
  std::vector<std::vector<int32_t>> round_;  // to try, the next one last
  std::map<std::vector<int32_t>, double> known_;
};

}  // namespace runahead
