// Causal attention over pages with an online softmax of powers of two. A block of four warps takes 64 rows of one head; each warp
// 16 of them, whose sums stay in registers from page to page. Rows keep what they have between calls (AttendArgs::sums, state),
// so that pages may come one after the other, as the chain brings them.
// Source: the tiling of FlashAttention-2 (arXiv 2307.08691), over pages.
#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"

namespace runahead::cuda {

inline constexpr int kAttendThreads = 128;
inline constexpr int kAttendRows = 64;
inline constexpr float kNothingSeen = -1e30f;  // below every score, and finite: no NaN from inf - inf

// Keys at once: as many as leave K and V of them in 48 KiB of shared memory.
constexpr int keys_at_once(int dim) { return dim <= 128 ? kPage : kPage / 2; }

// Rows of kDim values, next to each other, into a tile.
template <int kDim, class Tile>
DEVICE void fetch_rows(const Tile& tile, const uint16_t* from, int rows) {
  constexpr int kChunks = kDim / 8;
  for (int chunk = thread_id(); chunk < rows * kChunks; chunk += kAttendThreads)
    copy16_later(tile + (chunk / kChunks * (kDim + 8) + chunk % kChunks * 8), from + chunk * 8, true);
}

// Sixteen rows of one head, as the threads of a warp hold them: each two rows, l / 4 and l / 4 + 8, and of those the columns of
// its fragments.
template <int kDim>
struct WarpRows {
  static constexpr int kKeys = keys_at_once(kDim), kStride = kDim + 8, kDimTiles = kDim / 8, kKeyTiles = kKeys / 8;

  int head = 0, row = 0, column = 0;  // row: the first of the two
  uint32_t query[kDim / 16][4];
  float sums[kDimTiles][4] = {};
  float top[2] = {kNothingSeen, kNothingSeen};
  float weight[2] = {0, 0};

  // The block's queries pass through `tiles`.
  template <class Tile>
  DEVICE void load_queries(const AttendArgs& args, int block_row, const Tile& tiles) {
    static_assert(2 * kKeys >= kAttendRows, "there is room for them where keys and values will be");
    for (int chunk = thread_id(); chunk < kAttendRows * kDimTiles; chunk += kAttendThreads) {
      const int r = chunk / kDimTiles, c = chunk % kDimTiles * 8;
      const bool valid = block_row + r < args.row_end;
      const int64_t at = valid ? (static_cast<int64_t>(block_row + r) * args.heads + head) * kDim + c : 0;
      copy16_later(tiles + (r * kStride + c), args.queries + at, valid);
    }
    close_copies();
    await_copies<0>();
    BARRIER();
    for (int i = 0; i < kDim / 16; ++i) load_a(query[i], tiles, warp_id() * 16, i * 16, kStride);
    BARRIER();
  }

  // What an earlier call left.
  DEVICE void resume(const AttendArgs& args) {
    for (int half = 0; half < 2; ++half) {
      if (row + 8 * half >= args.row_end) continue;
      const int64_t at = static_cast<int64_t>(row + 8 * half) * args.heads + head;
      top[half] = args.state[at * 2];
      weight[half] = args.state[at * 2 + 1];
      for (int d = 0; d < kDimTiles; ++d)
        for (int j = 0; j < 2; ++j) sums[d][2 * half + j] = args.sums[at * kDim + d * 8 + column + j];
    }
  }

  template <class Tile>
  DEVICE void score(const Tile& keys, float (&scores)[kKeyTiles][4]) const {
    for (int i = 0; i < kDim / 16; ++i)
      for (int n = 0; n < kKeyTiles; ++n) {
        uint32_t b[2];
        load_b(b, keys, n * 8, i * 16, kStride);
        multiply_add(scores[n], query[i], b);
      }
  }

  // Keys from `key` on: a row sees none behind its own.
  DEVICE void mask(const AttendArgs& args, int key, float (&scores)[kKeyTiles][4]) const {
    for (int n = 0; n < kKeyTiles; ++n)
      for (int j = 0; j < 4; ++j)
        if (key + n * 8 + column + j % 2 > args.position + row + j / 2 * 8) scores[n][j] = kNothingSeen;
  }

  // Scores to weights, in place; sums are scaled to the new largest score.
  DEVICE void soften(float (&scores)[kKeyTiles][4]) {
    for (int half = 0; half < 2; ++half) {
      float largest = top[half];
      for (int n = 0; n < kKeyTiles; ++n)
        largest = max_of(largest, max_of(scores[n][2 * half], scores[n][2 * half + 1]));
      largest = max_of(largest, shuffle_xor(largest, 1));
      largest = max_of(largest, shuffle_xor(largest, 2));
      const float scale = exp2_fast(top[half] - largest);
      float added = 0;
      for (int n = 0; n < kKeyTiles; ++n)
        for (int j = 2 * half; j < 2 * half + 2; ++j) {
          scores[n][j] = scores[n][j] <= kNothingSeen ? 0.0f : exp2_fast(scores[n][j] - largest);
          added += scores[n][j];
        }
      added += shuffle_xor(added, 1);  // page by page, so that calls may end anywhere without changing a bit
      added += shuffle_xor(added, 2);
      weight[half] = weight[half] * scale + added;
      top[half] = largest;
      for (int d = 0; d < kDimTiles; ++d) sums[d][2 * half] *= scale, sums[d][2 * half + 1] *= scale;
    }
  }

  template <class Tile>
  DEVICE void mix(const float (&weights)[kKeyTiles][4], const Tile& values) {
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t a[4] = {to_bf16_pair(weights[2 * k][0], weights[2 * k][1]),
                             to_bf16_pair(weights[2 * k][2], weights[2 * k][3]),
                             to_bf16_pair(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                             to_bf16_pair(weights[2 * k + 1][2], weights[2 * k + 1][3])};
      for (int d = 0; d < kDimTiles; ++d) {
        uint32_t b[2];
        load_b_as_it_lies(b, values, k * 16, d * 8, kStride);
        multiply_add(sums[d], a, b);
      }
    }
  }

  DEVICE void leave(const AttendArgs& args) const {
    for (int half = 0; half < 2; ++half) {
      if (row + 8 * half >= args.row_end) continue;
      const int64_t at = static_cast<int64_t>(row + 8 * half) * args.heads + head;
      if (column == 0) args.state[at * 2] = top[half], args.state[at * 2 + 1] = weight[half];
      for (int d = 0; d < kDimTiles; ++d)
        for (int j = 0; j < 2; ++j) args.sums[at * kDim + d * 8 + column + j] = sums[d][2 * half + j];
    }
  }
};

template <int kDim>
KERNEL void attend_kernel(AttendArgs args) {
  using Rows = WarpRows<kDim>;
  constexpr int kKeys = Rows::kKeys, kSteps = kPage / kKeys;  // of a page
  SHARED(uint16_t, tiles, 2 * kKeys * Rows::kStride);
  const auto keys = tiles + 0, values = tiles + kKeys * Rows::kStride;
  const int block_row = args.row_begin + block_x() * kAttendRows;
  Rows rows;
  rows.head = block_y();
  rows.row = block_row + warp_id() * 16 + lane_id() / 4;
  rows.column = lane_id() % 4 * 2;
  rows.load_queries(args, block_row, keys);
  if (!args.anew) rows.resume(args);

  const int last =
      args.position + min_of(block_row + kAttendRows, args.row_end) - 1;  // the last position that the block sees
  const int steps = max_of(0, (min_of(args.page_end, last / kPage + 1) - args.page_begin) * kSteps);
  const int kv_head = rows.head / (args.heads / args.kv_heads);
  const auto place = [&](int step) {
    return args.pages[args.page_begin + step / kSteps] +
           (static_cast<int64_t>(kv_head) * kPage + step % kSteps * kKeys) * kDim;
  };
  if (steps > 0) fetch_rows<kDim>(keys, place(0), kKeys);
  close_copies();
  for (int step = 0; step < steps; ++step) {
    fetch_rows<kDim>(values, place(step) + args.value_offset, kKeys);
    close_copies();
    await_copies<1>();
    BARRIER();
    float scores[Rows::kKeyTiles][4] = {};
    rows.score(keys, scores);
    BARRIER();
    if (step + 1 < steps) fetch_rows<kDim>(keys, place(step + 1), kKeys);
    close_copies();
    const int key = args.page_begin * kPage + step * kKeys;
    if (key + kKeys - 1 > args.position + block_row) rows.mask(args, key, scores);
    rows.soften(scores);
    await_copies<1>();
    BARRIER();
    rows.mix(scores, values);
    BARRIER();
  }
  await_copies<0>();
  rows.leave(args);
}

}  // namespace runahead::cuda
