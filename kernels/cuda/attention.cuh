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

// Two of a warp's 16 rows, as a thread has them: l / 4 and l / 4 + 8.
struct RowState {
  float top[2] = {kNothingSeen, kNothingSeen};
  float weight[2] = {0, 0};
};

// Scores to weights, in place; sums are scaled to the new largest score.
template <int kKeyTiles, int kDimTiles>
DEVICE void soften(float (&scores)[kKeyTiles][4], float (&sums)[kDimTiles][4], RowState& state) {
  for (int half = 0; half < 2; ++half) {
    float top = state.top[half];
    for (int n = 0; n < kKeyTiles; ++n) top = max_of(top, max_of(scores[n][2 * half], scores[n][2 * half + 1]));
    top = max_of(top, shuffle_xor(top, 1));
    top = max_of(top, shuffle_xor(top, 2));
    const float scale = exp2_fast(state.top[half] - top);
    float weight = 0;
    for (int n = 0; n < kKeyTiles; ++n)
      for (int j = 2 * half; j < 2 * half + 2; ++j) {
        scores[n][j] = scores[n][j] <= kNothingSeen ? 0.0f : exp2_fast(scores[n][j] - top);
        weight += scores[n][j];
      }
    weight += shuffle_xor(weight, 1);  // page by page, so that calls may end anywhere without changing a bit
    weight += shuffle_xor(weight, 2);
    state.weight[half] = state.weight[half] * scale + weight;
    state.top[half] = top;
    for (int d = 0; d < kDimTiles; ++d) sums[d][2 * half] *= scale, sums[d][2 * half + 1] *= scale;
  }
}

template <int kDim>
KERNEL void attend_kernel(AttendArgs args) {
  constexpr int kKeys = keys_at_once(kDim), kStride = kDim + 8, kDimTiles = kDim / 8, kKeyTiles = kKeys / 8;
  static_assert(2 * kKeys >= kAttendRows, "the queries pass through the place of keys and values");
  SHARED(uint16_t, tiles, 2 * kKeys * kStride);
  const auto keys = tiles + 0, values = tiles + kKeys * kStride;
  const int head = block_y(), kv_head = head / (args.heads / args.kv_heads);
  const int row = args.row_begin + block_x() * kAttendRows;  // the block's first
  const int mine = row + warp_id() * 16 + lane_id() / 4;  // and mine + 8
  const int column = lane_id() % 4 * 2;

  for (int chunk = thread_id(); chunk < kAttendRows * kDimTiles; chunk += kAttendThreads) {
    const int r = chunk / kDimTiles, c = chunk % kDimTiles * 8;
    const bool valid = row + r < args.row_end;
    const int64_t at = valid ? (static_cast<int64_t>(row + r) * args.heads + head) * kDim + c : 0;
    copy16_later(tiles + (r * kStride + c), args.queries + at, valid);
  }
  close_copies();
  await_copies<0>();
  BARRIER();
  uint32_t query[kDim / 16][4];
  for (int i = 0; i < kDim / 16; ++i) load_a(query[i], tiles + 0, warp_id() * 16, i * 16, kStride);
  BARRIER();

  float sums[kDimTiles][4] = {};
  RowState state;
  for (int half = 0; half < 2 && !args.anew; ++half) {
    if (mine + 8 * half >= args.row_end) continue;
    const int64_t at = static_cast<int64_t>(mine + 8 * half) * args.heads + head;
    state.top[half] = args.state[at * 2];
    state.weight[half] = args.state[at * 2 + 1];
    for (int d = 0; d < kDimTiles; ++d)
      for (int j = 0; j < 2; ++j) sums[d][2 * half + j] = args.sums[at * kDim + d * 8 + column + j];
  }

  const int last =
      args.position + min_of(row + kAttendRows, args.row_end) - 1;  // the last position that the block sees
  const int page_end = min_of(args.page_end, last / kPage + 1);
  constexpr int kSteps = kPage / kKeys;  // of a page
  const auto place = [&](int step) {
    return args.pages[args.page_begin + step / kSteps] +
           (static_cast<int64_t>(kv_head) * kPage + step % kSteps * kKeys) * kDim;
  };
  const int steps = max_of(0, (page_end - args.page_begin) * kSteps);
  if (steps > 0) fetch_rows<kDim>(keys, place(0), kKeys);
  close_copies();
  for (int step = 0; step < steps; ++step) {
    fetch_rows<kDim>(values, place(step) + args.value_offset, kKeys);
    close_copies();
    await_copies<1>();
    BARRIER();
    float scores[kKeyTiles][4] = {};
    for (int i = 0; i < kDim / 16; ++i)
      for (int n = 0; n < kKeyTiles; ++n) {
        uint32_t b[2];
        load_b(b, keys, n * 8, i * 16, kStride);
        multiply_add(scores[n], query[i], b);
      }
    BARRIER();
    if (step + 1 < steps) fetch_rows<kDim>(keys, place(step + 1), kKeys);
    close_copies();

    const int key = args.page_begin * kPage + step * kKeys;
    if (key + kKeys - 1 > args.position + row)
      for (int n = 0; n < kKeyTiles; ++n)
        for (int j = 0; j < 4; ++j)
          if (key + n * 8 + column + j % 2 > args.position + mine + j / 2 * 8) scores[n][j] = kNothingSeen;
    soften(scores, sums, state);

    await_copies<1>();
    BARRIER();
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t weights[4] = {to_bf16_pair(scores[2 * k][0], scores[2 * k][1]),
                                   to_bf16_pair(scores[2 * k][2], scores[2 * k][3]),
                                   to_bf16_pair(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                                   to_bf16_pair(scores[2 * k + 1][2], scores[2 * k + 1][3])};
      for (int d = 0; d < kDimTiles; ++d) {
        uint32_t b[2];
        load_b_as_it_lies(b, values, k * 16, d * 8, kStride);
        multiply_add(sums[d], weights, b);
      }
    }
    BARRIER();
  }
  await_copies<0>();

  for (int half = 0; half < 2; ++half) {
    if (mine + 8 * half >= args.row_end) continue;
    const int64_t at = static_cast<int64_t>(mine + 8 * half) * args.heads + head;
    if (column == 0) args.state[at * 2] = state.top[half], args.state[at * 2 + 1] = state.weight[half];
    for (int d = 0; d < kDimTiles; ++d)
      for (int j = 0; j < 2; ++j) args.sums[at * kDim + d * 8 + column + j] = sums[d][2 * half + j];
  }
}

}  // namespace runahead::cuda
