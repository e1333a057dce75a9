#include "model/transformer/decode_attention.h"

#include <algorithm>

#include "model/kv_pages.h"

namespace runahead {
namespace {

constexpr int32_t kSpanPages = 6;               // long enough that taking a span costs nothing beside it
constexpr size_t kPartsBytes = size_t{4} << 20;  // stays in the caches of a few cores

}  // namespace

DecodeAttention::DecodeAttention(const OpTable& ops, const KvLayout& layout, CompactPages* compact, Activations& x,
                                 ThreadTeam& team, AlignedBuffer& buffer, Scores scores)
    : ops_(ops), layout_(layout), compact_(compact), x_(x), team_(team), buffer_(buffer), scores_(scores) {
  page_floats_ = static_cast<size_t>(x.tile(0, 0).rows) * ops.part_row_floats(layout.head_dim);
  for (int32_t row = 0; row < x.rows(); ++row) add_row(row);
  size_t most = 0;
  for (const Wave& wave : waves_)
    for (const Span& span : wave.spans)
      most = std::max(most, span.part + static_cast<size_t>(span.end - span.begin) * page_floats_);
  if (buffer_.size() < most * sizeof(float)) buffer_ = AlignedBuffer(most * sizeof(float));
}

void DecodeAttention::add_row(int32_t row) {
  const int32_t position = x_.places()[static_cast<size_t>(row)].position, end_page = position / kPageTokens + 1;
  const int32_t first = first_page_in_reach(position, scores_.window), pages = end_page - first;
  const size_t head_floats = static_cast<size_t>(pages) * page_floats_;
  const size_t floats = head_floats * static_cast<size_t>(layout_.num_kv_heads);
  if (waves_.empty() || (wave_floats_ + floats) * sizeof(float) > kPartsBytes) {
    waves_.emplace_back();
    wave_floats_ = 0;
  }
  Wave& wave = waves_.back();
  for (int32_t head = 0; head < layout_.num_kv_heads; ++head, wave_floats_ += head_floats) {
    const Span all{row, head, first, first, end_page, wave_floats_, pages <= kSpanPages};
    for (int32_t begin = first; begin < end_page; begin += kSpanPages) {
      Span span = all;
      span.begin = begin, span.end = std::min(end_page, begin + kSpanPages);
      span.part += static_cast<size_t>(begin - first) * page_floats_;
      wave.spans.push_back(span);
    }
    if (!all.whole) wave.folds.push_back(all);
  }
}

void DecodeAttention::attend(int32_t layer, const Span& span, int32_t thread) {
  const Activations::Place& place = x_.places()[static_cast<size_t>(span.row)];
  AttendArgs args{.tile = x_.tile(span.head, span.row),
                  .position = place.position,
                  .window = scores_.window,
                  .soft_cap = scores_.soft_cap};
  float* part = buffer_.as<float>().data() + span.part;
  const size_t keys = layout_.key_offset(span.head), values = layout_.value_offset(span.head);
  for (int32_t p = span.begin; p < span.end; ++p, part += page_floats_) {
    const std::span<const std::byte> kept = place.kv->page(layer, p);
    const std::byte* page = compact_ != nullptr ? compact_->expanded(kept, span.head, thread) : kept.data();
    const std::byte* next = nullptr;  // expanded pages are in the cache
    if (compact_ == nullptr && p + 1 < span.end) next = place.kv->page(layer, p + 1).data();
    args.page_position = p * kPageTokens;
    args.keys = page + keys, args.values = page + values;
    args.next_keys = next ? next + keys : nullptr, args.next_values = next ? next + values : nullptr;
    ops_.attend_page_part(args, part);
  }
  if (span.whole) fold(span);
}

void DecodeAttention::fold(const Span& all) {
  ops_.fold_page_parts(x_.tile(all.head, all.row), true, buffer_.as<float>().data() + all.part, all.end - all.first);
}

void DecodeAttention::run(int32_t layer) {
  for (const Wave& wave : waves_) {
    team_.run(static_cast<int32_t>(wave.spans.size()),
              [&](int32_t part, int32_t thread) { attend(layer, wave.spans[static_cast<size_t>(part)], thread); });
    if (wave.folds.empty()) continue;
    team_.run(static_cast<int32_t>(wave.folds.size()),
              [&](int32_t part, int32_t) { fold(wave.folds[static_cast<size_t>(part)]); });
  }
}

}  // namespace runahead
