#include "services/commands/plan_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json_text.h"
#include "planner/split_search.h"
#include "services/commands/output.h"
#include "services/engine/progress_bar.h"
#include "services/engine/split_table_file.h"
#include "services/http/http_client.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr auto kSilenceTimeout = std::chrono::seconds(600);  // one prompt, not streamed
constexpr int32_t kTokenMin = 100, kTokens = 150;  // ids that every vocabulary has; what they say does not matter

struct Cluster {
  std::string fingerprint;
  int32_t ready = 0;  // prefill workers
};

Result<json> answer_of(const HttpAnswer& answer) {
  if (answer.status != 200) return std::unexpected(error_of(answer));
  json body = json::parse(answer.body, nullptr, false);
  if (!body.is_object()) return fail(ErrorCode::kInternal, "the server's answer is no JSON object");
  return body;
}

Result<Cluster> look_at(const HttpClient& client) {
  const json body = TRY(answer_of(TRY(client.get("/v1/cluster"))));
  Cluster cluster{.fingerprint = body.value("fingerprint", "")};
  for (const json& worker : body.value("workers", json::array()))
    cluster.ready += worker.value("role", "") == "prefill" && worker.value("state", "") == "ready";
  if (cluster.ready == 0 || cluster.fingerprint.empty())
    return fail(ErrorCode::kUnavailable, "no prefill worker of that cluster is ready; wait for it, or start one");
  return cluster;
}

// Measures cuts on the cluster, and checks that every cut gives the same bits.
class Probe {
 public:
  Probe(const HttpClient& client, int32_t context_len, int repetitions) : client_(client), repetitions_(repetitions) {
    for (int32_t i = 0; i < context_len; ++i) prompt_.push_back(kTokenMin + i * 7 % kTokens);
  }

  Result<double> measure(const std::vector<int32_t>& cuts) {
    if (!std::exchange(warm_, true)) TRY(ask(cuts));  // the first of all is slower than the others
    std::vector<double> seconds;
    for (int i = 0; i < repetitions_; ++i) seconds.push_back(TRY(ask(cuts)));
    std::ranges::sort(seconds);
    return seconds[seconds.size() / 2];
  }

 private:
  // Time to first token of one request.
  Result<double> ask(const std::vector<int32_t>& cuts) {
    json body = {{"model", "default"}, {"prompt", prompt_}, {"max_tokens", 1}, {"temperature", 0}};
    if (cuts.empty()) body["runahead"] = {{"strategy", "single"}};
    else body["runahead"] = {{"cuts", cuts}};
    const json answer = TRY(answer_of(TRY(client_.post("/v1/completions", to_text(body)))));
    const json report = answer.value("usage", json::object()).value("runahead", json::object());
    const double ttft = report.value("ttft_seconds", 0.0);
    if (!(ttft > 0)) return fail(ErrorCode::kInternal, "the server's answer has no ttft_seconds");
    const std::string logits = report.value("first_logits_sha256", "");
    if (!logits_.empty() && logits != logits_)
      return fail(ErrorCode::kInternal, "two cuts of one prompt gave unlike logits; this is a fault of Runahead");
    logits_ = logits;
    return ttft;
  }

  const HttpClient& client_;
  int repetitions_;
  std::vector<int32_t> prompt_;
  std::string logits_;
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
Result<SplitSearch> search_length(const HttpClient& client, const PlanSearchOptions& options, int32_t context_len,
                                  int32_t ranks, SplitSearchFile& file, const CommonOptions& common) {
  SplitSearch search(context_len, ranks);
  Probe probe(client, context_len, options.repetitions);
  ProgressBar bar(fmt::format("{} tokens", context_len), !common.quiet);
  while (const auto cuts = search.next()) {
    auto known = file.measured.find({context_len, *cuts});
    if (known == file.measured.end()) {
      const double seconds = TRY(probe.measure(*cuts));
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
  const HttpClient client(options.url, kSilenceTimeout);
  const Cluster cluster = TRY(look_at(client));
  const int32_t ranks = options.ranks > 0 ? options.ranks : cluster.ready;
  if (ranks > cluster.ready)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} ranks need {} prefill workers, {} are ready", ranks, ranks, cluster.ready), "ranks");
  SplitSearchFile file;
  if (auto found = read_split_search(options.table)) file = std::move(*found);
  else if (found.error().code != ErrorCode::kNotFound) return std::unexpected(found.error());
  if (file.table.identity != cluster.fingerprint ||
      (!file.table.entries.empty() && std::ssize(file.table.entries.front().shares) != ranks)) {
    if (!file.measured.empty() || !file.table.entries.empty())
      return fail(ErrorCode::kInvalidArgument,
                  options.table + " is of another model, mode or number of ranks; give another file with --table",
                  "table");
    file.table.identity = cluster.fingerprint;
  }
  json rows = json::array();
  for (const int32_t context_len : options.tokens) {
    if (ranks > ranks_max(context_len))
      return fail(
          ErrorCode::kInvalidArgument,
          fmt::format("{} tokens have {} pages, too few for {} ranks", context_len, ranks_max(context_len), ranks),
          "tokens");
    const SplitSearch search = TRY(search_length(client, options, context_len, ranks, file, common));
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
