#include "model/transformer/compact_pages.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace runahead {
namespace {

constexpr float kLargest = 127;
constexpr float kRounds =
    12582912;  // 1.5 * 2^23: a small number that was added to it has lost its fraction, to the nearest even

}  // namespace

CompactPages::CompactPages(const OpTable& ops, const KvLayout& native, int32_t threads)
    : ops_(ops),
      native_(native),
      layout_{.num_kv_heads = native.num_kv_heads,
              .head_dim = native.head_dim,
              .key_bytes = 1,
              .value_bytes = 1,
              .token_scales = true},
      native_bytes_((native.page_bytes() + 63) / 64 * 64),
      group_(native_bytes_ * kGroupPages) {
  RUNAHEAD_CHECK(native.head_dim <= kHeadDimMax, "heads fit a buffer on the stack");
  for (int32_t thread = 0; thread < threads; ++thread) of_thread_.emplace_back(native_bytes_);
}

// A Hadamard matrix over as many neighbours as a power of two divides head_dim into, scaled to keep lengths.
void CompactPages::spread(float* head) const {
  int32_t group = 1;
  for (; native_.head_dim % (2 * group) == 0; group *= 2) {
    for (int32_t i = 0; i < native_.head_dim; i += 2 * group) {
      for (int32_t j = i; j < i + group; ++j) {
        const float a = head[j], b = head[j + group];
        head[j] = a + b;
        head[j + group] = a - b;
      }
    }
  }
  const float scale = 1 / std::sqrt(static_cast<float>(group));
  for (int32_t i = 0; i < native_.head_dim; ++i) head[i] *= scale;
}

void CompactPages::store(const float* head, int32_t slot, std::byte* part) const {
  const auto dim = static_cast<size_t>(native_.head_dim);
  float largest = 0;
  bool sound = true;
  for (size_t i = 0; i < dim; ++i) {
    sound &= std::isfinite(head[i]);
    largest = std::max(largest, std::abs(head[i]));
  }
  auto* codes = reinterpret_cast<int8_t*>(part) + static_cast<size_t>(slot) * dim;
  const float inverse = sound && largest > 0 ? kLargest / largest : 0;
  for (size_t i = 0; i < dim; ++i)
    codes[i] = sound ? static_cast<int8_t>(static_cast<int32_t>(head[i] * inverse + kRounds - kRounds)) : int8_t{0};
  // What overflowed must still be seen in the logits.
  const float scale = sound ? largest / kLargest : std::numeric_limits<float>::quiet_NaN();
  std::memcpy(part + kPageTokens * dim + static_cast<size_t>(slot) * sizeof(float), &scale, sizeof(scale));
}

void CompactPages::expand(std::span<const std::byte> page, int32_t head, std::byte* native) const {
  const auto dim = static_cast<size_t>(native_.head_dim);
  alignas(64) float row[kHeadDimMax];
  const auto each_token = [&](size_t offset, auto store_row) {
    const std::byte* part = page.data() + offset;
    for (int32_t slot = 0; slot < kPageTokens; ++slot) {
      const auto* codes = reinterpret_cast<const int8_t*>(part) + static_cast<size_t>(slot) * dim;
      float scale;
      std::memcpy(&scale, part + kPageTokens * dim + static_cast<size_t>(slot) * sizeof(float), sizeof(scale));
      for (size_t i = 0; i < dim; ++i) row[i] = static_cast<float>(codes[i]) * scale;
      store_row(slot);
    }
  };
  each_token(layout_.key_offset(head),
             [&](int32_t slot) { ops_.store_key(row, native_.head_dim, slot, native + native_.key_offset(head)); });
  each_token(layout_.value_offset(head),
             [&](int32_t slot) { ops_.store_value(row, native_.head_dim, slot, native + native_.value_offset(head)); });
}

const std::byte* CompactPages::expanded(std::span<const std::byte> page, int32_t head, int32_t thread) {
  std::byte* native = of_thread_[static_cast<size_t>(thread)].data();
  expand(page, head, native);
  return native;
}

}  // namespace runahead
