// DecodeAttention: shares the attention of a decode batch, in layers of one window, among the threads of a team. One sequence has few heads and
// many pages, so its pages are shared out too: every span of pages leaves its parts, then each head folds its own in
// order. Who does which span changes no bit (kernels/ops.h).
//   owner    lives for one decode step; `buffer` is the engine's, grows to what the step needs and stays.
//   memory   parts of at most kPartsBytes at a time, or of one sequence: 1.2 KB a page and head of 4 query heads of 64.
#pragma once

#include <span>
#include <vector>

#include "base/memory.h"
#include "kernels/thread_team.h"
#include "model/transformer/activations.h"
#include "model/transformer/compact_pages.h"

namespace runahead {

class DecodeAttention {
 public:
  // As AttendArgs has them.
  struct Scores {
    int32_t window = 0;
    float soft_cap = 0;
  };
  // compact: what the pages are; null: the kernels' own.
  DecodeAttention(const OpTable& ops, const KvLayout& layout, CompactPages* compact, Activations& x, ThreadTeam& team,
                  AlignedBuffer& buffer, Scores scores);
  // All rows of the batch over all pages of the layer that they see.
  void run(int32_t layer);

 private:
  // Pages [begin, end) of one row and K/V head, of those that it sees, from `first` on.
  struct Span {
    int32_t row = 0, head = 0, first = 0, begin = 0, end = 0;
    size_t part = 0;  // where its parts lie, in floats
    bool whole = true;  // all pages of the row
  };
  // Rows whose parts are in memory at the same time.
  struct Wave {
    std::vector<Span> spans, folds;  // folds: one for each row and head that has several spans
  };
  void add_row(int32_t row);
  void attend(int32_t layer, const Span& span, int32_t thread);
  void fold(const Span& all);

  const OpTable& ops_;
  const KvLayout& layout_;
  CompactPages* compact_;
  Activations& x_;
  ThreadTeam& team_;
  AlignedBuffer& buffer_;
  Scores scores_;
  size_t page_floats_;  // of a page's part of one head
  size_t wave_floats_ = 0;  // of the last wave
  std::vector<Wave> waves_;
};

}  // namespace runahead
