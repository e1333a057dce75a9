#include "planner/split_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {
namespace {

std::unexpected<Error> bad_table(std::string what) {
  return fail(ErrorCode::kInvalidArgument, "the table of cuts is not valid: " + std::move(what), "table");
}

std::vector<double> interpolated(const SplitTable& table, int32_t context_len) {
  const auto above = std::ranges::lower_bound(table.entries, context_len, {}, &SplitEntry::context_len);
  if (above == table.entries.begin()) return above->shares;
  if (above == table.entries.end()) return std::prev(above)->shares;
  const SplitEntry& below = *std::prev(above);
  const double weight = static_cast<double>(context_len - below.context_len) /
                        static_cast<double>(above->context_len - below.context_len);
  std::vector<double> shares;
  for (size_t rank = 0; rank < below.shares.size(); ++rank)
    shares.push_back(below.shares[rank] * (1 - weight) + above->shares[rank] * weight);
  return shares;
}

}  // namespace

Result<void> check_table(const SplitTable& table) {
  constexpr double kSumError = 1e-6;
  if (table.entries.empty()) return bad_table("it has no entry");
  for (size_t i = 0; i < table.entries.size(); ++i) {
    const SplitEntry& entry = table.entries[i];
    const std::string where = "the entry of " + std::to_string(entry.context_len) + " tokens ";
    if (entry.shares.empty() || entry.shares.size() > static_cast<size_t>(limits::kWorkersMax) ||
        std::ssize(entry.shares) > ranks_max(entry.context_len))
      return bad_table(where + "has " + std::to_string(entry.shares.size()) + " ranks");
    if (entry.shares.size() != table.entries.front().shares.size())
      return bad_table(where + "has another number of ranks than the first");
    if (i > 0 && entry.context_len <= table.entries[i - 1].context_len)
      return bad_table(where + "is not longer than the one before");
    if (!std::ranges::all_of(entry.shares, [](double share) { return share > 0 && share <= 1; }) ||
        std::abs(std::accumulate(entry.shares.begin(), entry.shares.end(), 0.0) - 1) > kSumError)
      return bad_table(where + "has shares that are not parts of 1");
  }
  return {};
}

Result<Partition> searched_partition(const SplitTable& table, int32_t context_len) {
  const auto found = std::ranges::find(table.entries, context_len, &SplitEntry::context_len);
  if (found != table.entries.end()) return pages_of(found->shares, context_len);
  std::string lengths;
  for (const SplitEntry& entry : table.entries)
    lengths += (lengths.empty() ? "" : ", ") + std::to_string(entry.context_len);
  return fail(ErrorCode::kNotFound,
              "no cuts were searched for " + std::to_string(context_len) + " tokens, only for " + lengths +
                  "; use the strategy 'predicted', or search this length too",
              "strategy");
}

Partition predicted_partition(const SplitTable& table, int32_t context_len) {
  return pages_of(interpolated(table, context_len), context_len);
}

Partition pages_of(std::span<const double> shares, int32_t context_len) {
  const auto ranks = static_cast<int32_t>(shares.size());
  const int32_t pages = pages_for(context_len);
  RUNAHEAD_CHECK(ranks >= 1 && ranks <= pages, "every rank has a page");
  const double whole = std::accumulate(shares.begin(), shares.end(), 0.0);
  Partition partition;
  double sum = 0;
  int32_t begin = 0;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    sum += shares[static_cast<size_t>(rank)] / whole * context_len;
    const auto nearest = static_cast<int32_t>(std::lround(sum / kPageTokens));
    const int32_t end = std::clamp(nearest, begin + 1, pages - (ranks - 1 - rank));
    partition.push_back({begin * kPageTokens, std::min((rank + 1 == ranks ? pages : end) * kPageTokens, context_len)});
    begin = end;
  }
  return partition;
}

}  // namespace runahead
