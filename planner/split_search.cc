#include "planner/split_search.h"

#include <algorithm>

#include "base/check.h"

namespace runahead {
namespace {

constexpr size_t kGridCutsMax = 3;  // up to here all 3^n - 1 neighbours are tried, beyond only 2 n

// Inner cuts, each behind the one before: what a chain can run.
bool possible(const std::vector<int32_t>& cuts, int32_t context_len) {
  int32_t before = 0;
  for (const int32_t cut : cuts) {
    if (cut <= before) return false;
    before = cut;
  }
  return before < context_len;
}

std::vector<std::vector<int32_t>> neighbours(const std::vector<int32_t>& cuts, int32_t stride, int32_t context_len) {
  std::vector<std::vector<int32_t>> found;
  const auto add = [&](std::vector<int32_t> moved) {
    if (possible(moved, context_len)) found.push_back(std::move(moved));
  };
  if (cuts.size() > kGridCutsMax) {
    for (size_t i = 0; i < cuts.size(); ++i)
      for (const int32_t step : {-stride, stride}) {
        std::vector<int32_t> moved = cuts;
        moved[i] += step;
        add(std::move(moved));
      }
    return found;
  }
  int cells = 1;
  for (size_t i = 0; i < cuts.size(); ++i) cells *= 3;
  for (int cell = 0; cell < cells; ++cell) {
    std::vector<int32_t> moved = cuts;
    int digits = cell;
    for (int32_t& cut : moved) {
      cut += (digits % 3 - 1) * stride;
      digits /= 3;
    }
    if (moved != cuts) add(std::move(moved));
  }
  return found;
}

}  // namespace

SplitSearch::SplitSearch(int32_t context_len, int32_t ranks)
    : context_len_(context_len), best_(cuts_of(even_partition(context_len, ranks))) {
  RUNAHEAD_CHECK(ranks >= 1 && ranks <= ranks_max(context_len), "every rank has a page");
  first_stride_ = kPageTokens;
  while (first_stride_ * 4 * ranks <= context_len) first_stride_ *= 2;  // a quarter of a chunk at most
  stride_ = first_stride_;
  round_.push_back(best_);
}

void SplitSearch::begin_round() {
  round_ = neighbours(best_, stride_, context_len_);
  std::ranges::reverse(round_);
  better_ = false;
}

std::optional<std::vector<int32_t>> SplitSearch::next() {
  while (stride_ > 0) {
    while (!round_.empty() && known_.contains(round_.back())) round_.pop_back();
    if (!round_.empty()) return round_.back();
    if (!better_) {
      stride_ = stride_ > kPageTokens && !best_.empty() ? stride_ / 2 : 0;
      if (stride_ == 0) return std::nullopt;
    }
    begin_round();
  }
  return std::nullopt;
}

void SplitSearch::measured(double ttft_seconds) {
  RUNAHEAD_CHECK(!round_.empty() && ttft_seconds > 0, "it answers next()");
  const std::vector<int32_t> cuts = round_.back();
  round_.pop_back();
  const bool first = known_.empty();
  known_.emplace(cuts, ttft_seconds);
  if (!first && ttft_seconds >= best_seconds_) return;
  best_ = cuts;
  best_seconds_ = ttft_seconds;
  better_ = true;
}

double SplitSearch::progress() const {
  int32_t all = 0, done = 0;
  for (int32_t stride = first_stride_; stride >= kPageTokens; stride /= 2) {
    ++all;
    done += stride > stride_;
  }
  return static_cast<double>(done) / all;
}

}  // namespace runahead
