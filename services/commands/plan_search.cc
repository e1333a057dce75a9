#include "services/commands/plan_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/json_text.h"
#include "planner/split_search.h"
#include "services/commands/cluster_probe.h"
#include "services/commands/output.h"
#include "services/engine/progress_bar.h"
#include "services/engine/split_table_file.h"

namespace runahead {
namespace {

using nlohmann::json;

// Measures cuts on the cluster.
class CutTimes {
 public:
  CutTimes(ClusterProbe& probe, int32_t context_len, int repetitions)
      : probe_(probe), context_len_(context_len), repetitions_(repetitions) {}

  Result<double> measure(const std::vector<int32_t>& cuts) {
    if (!std::exchange(warm_, true)) TRY(probe_.ask(context_len_, cuts));  // the first of all is slower than the others
    std::vector<double> seconds;
    for (int i = 0; i < repetitions_; ++i) {
      const json report = TRY(probe_.ask(context_len_, cuts));
      seconds.push_back(report.at("ttft_seconds"));
    }
    std::ranges::sort(seconds);
    return seconds[seconds.size() / 2];
  }

 private:
  ClusterProbe& probe_;
  int32_t context_len_;
  int repetitions_;
  bool warm_ = false;
};

void keep_entry(SplitTable& table, const SplitSearch& search, int32_t context_len) {
  SplitEntry entry{.context_len = context_len, .shares = {}, .ttft_seconds = search.best_seconds()};
  int32_t begin = 0;
  std::vector<int32_t> ends = search.best_cuts();
  ends.push_back(context_len);
  for (const int32_t end : ends)
    entry.shares.push_back(static_cast<double>(end - std::exchange(begin, end)) / context_len);
  const auto at = std::ranges::lower_bound(table.entries, context_len, {}, &SplitEntry::context_len);
  if (at != table.entries.end() && at->context_len == context_len) *at = std::move(entry);
  else table.entries.insert(at, std::move(entry));
}

// One length: the known answers first, then measured ones, each kept at once.
Result<SplitSearch> search_length(ClusterProbe& probe, const PlanSearchOptions& options, int32_t context_len,
                                  int32_t ranks, SplitSearchFile& file, const CommonOptions& common) {
  SplitSearch search(context_len, ranks);
  CutTimes times(probe, context_len, options.repetitions);
  ProgressBar bar(fmt::format("{} tokens", context_len), !common.quiet);
  while (const auto cuts = search.next()) {
    auto known = file.measured.find({context_len, *cuts});
    if (known == file.measured.end()) {
      const double seconds = TRY(times.measure(*cuts));
      known = file.measured.emplace(std::pair{context_len, *cuts}, seconds).first;
      TRY(write_split_search(options.table, file));
    }
    search.measured(known->second);
    bar.show(search.progress(),
             fmt::format("{} cuts measured, best {:.3f} s", search.measurements(), search.best_seconds()));
  }
  bar.clear();
  return search;
}

json row_of(const SplitSearch& search, int32_t context_len) {
  return {{"tokens", context_len},
          {"cuts", search.best_cuts()},
          {"ttft_seconds", search.best_seconds()},
          {"measured", search.measurements()}};
}

}  // namespace

Result<void> search_plans(const PlanSearchOptions& given, const CommonOptions& common) {
  PlanSearchOptions options = given;
  if (options.table.empty()) options.table = default_split_table().string();
  ClusterProbe probe(options.url, options.api_key);
  const json cluster = TRY(probe.cluster());
  const auto fingerprint = cluster.at("fingerprint").get<std::string>();
  const int32_t ready = ClusterProbe::ready_prefill_workers(cluster);
  const int32_t ranks = options.ranks > 0 ? options.ranks : ready;
  if (ranks > ready)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} ranks need {} prefill workers, {} are ready", ranks, ranks, ready), "ranks");
  SplitSearchFile file;
  if (auto found = read_split_search(options.table)) file = std::move(*found);
  else if (found.error().code != ErrorCode::kNotFound) return std::unexpected(found.error());
  if (file.table.identity != fingerprint ||
      (!file.table.entries.empty() && std::ssize(file.table.entries.front().shares) != ranks)) {
    if (!file.measured.empty() || !file.table.entries.empty())
      return fail(ErrorCode::kInvalidArgument,
                  options.table + " is of another model, mode or number of ranks; give another file with --table",
                  "table");
    file.table.identity = fingerprint;
  }
  json rows = json::array();
  for (const int32_t context_len : options.tokens) {
    if (ranks > ranks_max(context_len))
      return fail(
          ErrorCode::kInvalidArgument,
          fmt::format("{} tokens have {} pages, too few for {} ranks", context_len, ranks_max(context_len), ranks),
          "tokens");
    const SplitSearch search = TRY(search_length(probe, options, context_len, ranks, file, common));
    keep_entry(file.table, search, context_len);
    TRY(write_split_search(options.table, file));
    rows.push_back(row_of(search, context_len));
    if (!common.json())
      std::printf("%d tokens: cuts %s, ttft %.3f s (%ld cuts measured)\n", context_len,
                  to_text(rows.back()["cuts"]).c_str(), search.best_seconds(),
                  static_cast<long>(search.measurements()));
  }
  if (common.json()) print_json({{"table", options.table}, {"entries", rows}});
  else std::printf("kept in %s: coordinator or serve --split-table %s\n", options.table.c_str(), options.table.c_str());
  return {};
}

}  // namespace runahead
