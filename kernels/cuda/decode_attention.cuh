// Attention of one token of each of several sequences. The pages of a sequence are divided into parts of kPagesPerPart, whatever
// the batch, and the parts are joined in ascending order: a row's result depends on nobody else's. A block of four warps takes a
// part for up to kGroup query heads of one K/V head, which share its reading of K and V; a warp takes every fourth token.
#pragma once

#include "kernels/cuda/attention.cuh"

namespace runahead::cuda {

inline constexpr int kDecodeThreads = 128;
inline constexpr int kDecodeWarps = kDecodeThreads / kWarpLanes;
inline constexpr int kGroup = 8;
constexpr int head_groups(int heads, int kv_heads) { return (heads / kv_heads + kGroup - 1) / kGroup; }

// A softmax that has seen some tokens, as one lane holds it: its share of the head's values.
template <int kOwn>
struct Seen {
  float top = kNothingSeen, weight = 0;
  float values[kOwn] = {};

  DEVICE void add(float score, const float (&value)[kOwn]) {
    const float new_top = max_of(top, score), scale = exp2_fast(top - new_top), part = exp2_fast(score - new_top);
    weight = weight * scale + part;
    for (int i = 0; i < kOwn; ++i) values[i] = values[i] * scale + part * value[i];
    top = new_top;
  }
};

// What the warps of the block saw, merged [kDecodeWarps][kGroup][kDim + 2], as a part of each of `count` heads from `head` on.
template <int kDim, class Tile>
DEVICE void join_warps(const DecodeAttendArgs& args, const Tile& merged, int row, int head, int count) {
  constexpr int kPart = kDim + 2;
  const int parts = decode_parts(args.pages_stride);
  for (int i = thread_id(); i < count * kDim; i += kDecodeThreads) {
    const int g = i / kDim, d = i % kDim;
    float top = kNothingSeen, weight = 0, value = 0;
    for (int warp = 0; warp < kDecodeWarps; ++warp)
      top = max_of<float>(top, merged[(warp * kGroup + g) * kPart + kDim]);
    for (int warp = 0; warp < kDecodeWarps; ++warp) {
      const int at = (warp * kGroup + g) * kPart;
      const float scale = exp2_fast(merged[at + kDim] - top);
      weight += merged[at + kDim + 1] * scale;
      value += merged[at + d] * scale;
    }
    float* out = args.parts + ((static_cast<int64_t>(row) * args.heads + head + g) * parts + block_x()) * kPart;
    out[d] = value;
    if (d == 0) out[kDim] = top, out[kDim + 1] = weight;
  }
}

template <int kDim>
KERNEL void decode_part_kernel(DecodeAttendArgs args) {
  constexpr int kOwn = kDim / kWarpLanes, kPart = kDim + 2;
  SHARED(float, merged, kDecodeWarps* kGroup* kPart);
  const int groups = head_groups(args.heads, args.kv_heads), group = args.heads / args.kv_heads;
  const int part = block_x(), kv_head = block_y() / groups, row = block_z();
  const int first = block_y() % groups * kGroup, count = min_of(kGroup, group - first);
  const int head = kv_head * group + first;  // the first of the block
  const int seen = args.positions[row] + 1, begin = part * kPagesPerPart * kPage;
  if (begin >= seen) return;
  const int end = min_of(seen, begin + kPagesPerPart * kPage);

  float query[kGroup][kOwn];
  for (int g = 0; g < kGroup; ++g)
    for (int i = 0; i < kOwn; ++i) {
      const int64_t at = (static_cast<int64_t>(row) * args.heads + head + g) * kDim + i * kWarpLanes + lane_id();
      query[g][i] = g < count ? from_bf16(args.queries[at]) : 0.0f;
    }
  Seen<kOwn> state[kGroup];
  for (int token = begin + warp_id(); token < end; token += kDecodeWarps) {
    const uint16_t* page = args.pages[static_cast<int64_t>(row) * args.pages_stride + token / kPage];
    const uint16_t* key = page + (static_cast<int64_t>(kv_head) * kPage + token % kPage) * kDim;
    float keys[kOwn], values[kOwn];
    for (int i = 0; i < kOwn; ++i) {
      keys[i] = from_bf16(key[i * kWarpLanes + lane_id()]);
      values[i] = from_bf16(key[args.value_offset + i * kWarpLanes + lane_id()]);
    }
    for (int g = 0; g < kGroup; ++g) {
      if (g >= count) continue;
      float score = 0;
      for (int i = 0; i < kOwn; ++i) score += query[g][i] * keys[i];
      state[g].add(warp_sum(score), values);
    }
  }
  for (int g = 0; g < kGroup; ++g) {  // a constant count: what is indexed by a variable leaves the registers
    if (g >= count) continue;
    const int at = (warp_id() * kGroup + g) * kPart;
    for (int i = 0; i < kOwn; ++i) merged[at + i * kWarpLanes + lane_id()] = state[g].values[i];
    if (lane_id() == 0) merged[at + kDim] = state[g].top, merged[at + kDim + 1] = state[g].weight;
  }
  BARRIER();
  join_warps<kDim>(args, merged, row, head, count);
}

// A block takes a head of a row.
template <int kDim>
KERNEL void decode_join_kernel(DecodeAttendArgs args) {
  constexpr int kPart = kDim + 2;
  const int head = block_x(), row = block_y();
  const int64_t at = static_cast<int64_t>(row) * args.heads + head;
  const int parts = args.positions[row] / (kPagesPerPart * kPage) + 1;
  const float* own = args.parts + at * decode_parts(args.pages_stride) * kPart;
  float top = kNothingSeen;
  for (int part = 0; part < parts; ++part) top = max_of(top, own[part * kPart + kDim]);
  for (int d = thread_id(); d < kDim; d += kDecodeThreads) {
    float weight = 0, value = 0;
    for (int part = 0; part < parts; ++part) {
      const float scale = exp2_fast(own[part * kPart + kDim] - top);
      weight += own[part * kPart + kDim + 1] * scale;
      value += own[part * kPart + d] * scale;
    }
    args.sums[at * kDim + d] = value;
    if (d == 0) args.state[at * 2] = top, args.state[at * 2 + 1] = weight;
  }
}

}  // namespace runahead::cuda
