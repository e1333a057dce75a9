// LeaseShape: which pages of each layer a lease has memory for, and how many that are. The worker takes them by it, and the
// coordinator counts by it what a worker has left. Pure; any thread.
//   window   of a layer whose tokens see the last ones only, a rank has what its first token sees, and what is behind. While
//            an answer is made, a page takes the memory of the one that has fallen out of reach. A sequence begins with what the
//            first token of its prompt's last, partly filled page sees: then prompts that have all full pages in common can
//            share them.
//   stays    what others may read, a prompt whose pages are kept, is not written again.
// Source: ADR 32; of layers at once: ADR 22.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/model_shape.h"
#include "base/token_range.h"

namespace runahead {

// Layers whose pages a rank has memory for at once. Only the last rank's stay (the decode worker gets them from there); another
// rank has done with a layer when it has attended to it and passed it on. A quarter, for so far ranks run apart while links or
// workers stutter; two at least, one to attend to while the next one comes.
inline int32_t kv_layers_at_once(int32_t num_layers, bool is_last_rank) {
  return is_last_rank ? num_layers : std::min(num_layers, std::max(2, (num_layers + 3) / 4));
}

// Of one layer: pages [first, end) have memory from the beginning, and page p >= end has that of page p - turn, from when the
// sequence reaches it.
struct LayerPages {
  int32_t first = 0;
  int32_t end = 0;
  int32_t turn = 0;  // 0: no page takes another's
};

struct LeaseShape {
  int32_t num_pages = 0;  // a layer: those of all tokens
  int32_t shared = 0;  // the first ones are those of a kept beginning, as far as it has them
  int32_t layers_at_once = 0;  // layer l has memory when layer l - layers_at_once has none any more
  std::vector<LayerPages> layers;

  int32_t num_layers() const { return static_cast<int32_t>(layers.size()); }
  // Of the pool, beside those of the beginning: the most that so many layers one behind the other have.
  int64_t own_pages() const;
  // Has a page in reach been written over when the sequence reaches this one?
  bool has_turned(int32_t page) const;
  // Layers that have this page, which is none of the beginning's, when the first `kept` of a sequence that has just reached page
  // `kept` stay.
  int32_t layers_with(int32_t page, int32_t kept) const;
};

// Every page of every layer.
LeaseShape whole_lease(int32_t num_layers, int32_t tokens, int32_t shared = 0);
// Of a rank of a chain that computes `chunk`.
LeaseShape rank_lease(const ModelShape& model, TokenRange chunk, int32_t shared, bool is_last_rank);
// Of a sequence whose answer is made: prompt and answer have `tokens` tokens at most. keeps_prompt: its full pages are others'
// to read as soon as they are there.
LeaseShape sequence_lease(const ModelShape& model, int32_t prompt_len, int32_t tokens, int32_t shared,
                          bool keeps_prompt);

}  // namespace runahead
