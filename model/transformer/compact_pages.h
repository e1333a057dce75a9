// CompactPages: K/V pages of 8 bits a value for the modes whose own have 16 or 32 (`--compute int16+kv8`). They are half or a
// quarter as large on the links and in memory; what they cost in quality and time stands in docs/models.md.
//   made       where K and V are made, so that every cut of a prompt gives the same bits: a rank reads its own pages through
//              8 bits, too. A head of a token is round(x / scale) with scale = max |x| / 127, in fp32.
//   rotated    queries and keys go through a Hadamard matrix first: their products stay, values that stand out are spread
//              (ADR 5).
//   read       a page is expanded into the mode's own format before the kernels see it: once for all rows of a prefill, in
//              groups of kGroupPages; page by page in decode.
//   threads    any number at once, each with its own number and its own pages of the group. owner: the engine.
#pragma once

#include <span>
#include <vector>

#include "base/memory.h"
#include "kernels/ops.h"

namespace runahead {

class CompactPages {
 public:
  static constexpr int32_t kGroupPages = 16;  // expanded at a time: 1.6 MB in fp32 for heads of 3 x 64

  CompactPages(const OpTable& ops, const KvLayout& native, int32_t threads);

  // Of a compact page: a head's K, then its scales; V likewise.
  const KvLayout& layout() const { return layout_; }
  void spread(float* head) const;  // [head_dim], in place
  // One token's head into its slot of the page, at layout().key_offset or value_offset.
  void store(const float* head, int32_t slot, std::byte* part) const;

  // One head of a compact page, in this thread's buffer: as the native page that the kernels take.
  const std::byte* expanded(std::span<const std::byte> page, int32_t head, int32_t thread);
  // One head of a compact page into a native one; page i of the group is a place for one.
  void expand(std::span<const std::byte> page, int32_t head, std::byte* native) const;
  std::byte* group_page(int32_t i) { return group_.data() + static_cast<size_t>(i) * native_bytes_; }
  size_t native_bytes() const { return native_bytes_; }

 private:
  const OpTable& ops_;
  KvLayout native_, layout_;
  size_t native_bytes_;  // of a page, a multiple of 64
  std::vector<AlignedBuffer> of_thread_;
  AlignedBuffer group_;  // [kGroupPages] native pages
};

}  // namespace runahead
