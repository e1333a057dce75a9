#include "services/commands/bench_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>

#include "base/json_text.h"
#include "base/rng.h"
#include "services/commands/exit_codes.h"
#include "services/commands/fail_if.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/engine/progress_bar.h"
#include "services/process/process.h"

namespace runahead {
namespace {

using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

constexpr std::pair<const char*, double> kQuantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}};
constexpr const char* kTimes[] = {"ttft", "tpot", "e2e"};

double seconds_since(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

int clients_of(const BenchLoadOptions& options) { return std::min(options.clients, options.requests); }

struct Answered {
  double ttft = 0, whole = 0;  // seconds
  int64_t prompt_tokens = 0, tokens = 0;
  std::optional<Error> error;
  double per_token() const { return (whole - ttft) / static_cast<double>(tokens - 1); }  // of 2 tokens or more
};

json body_of(const BenchLoadOptions& options, uint64_t seed, size_t number) {
  SeededRng random(seed + number);
  json prompt = json::array();
  for (int i = options.prompt_tokens[number % options.prompt_tokens.size()]; i > 0; --i)
    prompt.push_back(kPlainTokenMin + random.next() % kPlainTokens);
  return {{"model", "default"},
          {"prompt", std::move(prompt)},
          {"max_tokens", options.answer_tokens},
          {"ignore_eos", true},
          {"temperature", 0},
          {"stream", true},
          {"stream_options", {{"include_usage", true}}},
          {"cache_salt", fmt::format("bench-load-{}-{}", seed, number)}};
}

// The events of one answer: when its first token came, and what its usage says.
Answered ask_once(const HttpClient& client, const json& body) {
  Answered answered;
  const SteadyClock::time_point begin = SteadyClock::now();
  const auto take = [&](std::string_view event, std::string_view data) {
    if (data == "[DONE]") return false;
    const json chunk = json::parse(data, nullptr, false);
    if (!chunk.is_object() || event == "error" || chunk.contains("error")) {
      const json error = chunk.is_object() ? chunk.value("error", json::object()) : json::object();
      answered.error = Error{ErrorCode::kInternal, error.value("message", "the stream broke off"), {}};
      return false;
    }
    if (answered.ttft == 0 && !chunk.value("choices", json::array()).empty()) answered.ttft = seconds_since(begin);
    if (const json usage = chunk.value("usage", json()); usage.is_object()) {
      answered.prompt_tokens = usage.value("prompt_tokens", int64_t{0});
      answered.tokens = usage.value("completion_tokens", int64_t{0});
    }
    return true;
  };
  const auto answer = client.post_stream("/v1/completions", to_text(body), take);
  answered.whole = seconds_since(begin);
  if (!answer) answered.error = answer.error();
  else if (answer->status != 200) answered.error = error_of(*answer);
  else if (!answered.error && answered.tokens == 0)
    answered.error = Error{ErrorCode::kInternal, "the stream broke off", {}};
  return answered;
}

// Of sorted values, by nearest rank; not a number of none.
double quantile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(1.0, rank)) - 1];
}

void add_times(Measures& measures, const std::string& name, std::vector<double> seconds) {
  std::ranges::sort(seconds);
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  measures[name + "_mean_s"] = sum / static_cast<double>(seconds.size());  // not a number of none
  measures[name + "_max_s"] = quantile(seconds, 1);
  for (const auto& [suffix, share] : kQuantiles) measures[name + "_" + suffix + "_s"] = quantile(seconds, share);
}

Measures measures_of(const std::vector<Answered>& all, double elapsed) {
  std::vector<double> ttft, tpot, whole;
  double tokens = 0, prompt_tokens = 0;
  for (const Answered& each : all) {
    if (each.error) continue;
    ttft.push_back(each.ttft);
    whole.push_back(each.whole);
    if (each.tokens > 1) tpot.push_back(each.per_token());
    tokens += static_cast<double>(each.tokens);
    prompt_tokens += static_cast<double>(each.prompt_tokens);
  }
  Measures measures;
  const auto good = static_cast<double>(whole.size());
  measures["failed"] = static_cast<double>(all.size()) - good;
  measures["failed_ratio"] = measures["failed"] / static_cast<double>(all.size());
  measures["requests_per_second"] = good / elapsed;
  measures["tokens_per_second"] = tokens / elapsed;
  measures["prompt_tokens_per_second"] = prompt_tokens / elapsed;
  add_times(measures, "ttft", std::move(ttft));
  add_times(measures, "tpot", std::move(tpot));
  add_times(measures, "e2e", std::move(whole));
  return measures;
}

// All requests, by `clients` threads; the bar is shown by whoever has an answer.
std::vector<Answered> run_clients(const BenchLoadOptions& options, bool quiet) {
  std::vector<Answered> all(static_cast<size_t>(options.requests));
  std::atomic<size_t> next = 0;
  std::mutex mutex;  // of the bar and the count
  size_t done = 0;
  ProgressBar bar("bench load", !quiet);
  const uint64_t seed = random_seed();
  const auto client = [&] {
    const HttpClient http(options.api.url, kAnswerTimeout, options.api.api_key);
    for (size_t i = next++; i < all.size(); i = next++) {
      all[i] = ask_once(http, body_of(options, seed, i));
      const std::lock_guard lock(mutex);
      ++done;
      bar.show(static_cast<double>(done) / static_cast<double>(all.size()),
               fmt::format("{} of {} requests", done, all.size()));
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < clients_of(options); ++i) threads.emplace_back(client);
  threads.clear();
  bar.clear();
  return all;
}

void print_table(const Measures& measures, const std::vector<Answered>& all, const BenchLoadOptions& options,
                 double elapsed) {
  std::printf("%zu requests by %d clients in %.2f s, %.0f failed\n\n%-6s", all.size(), clients_of(options), elapsed,
              measures.at("failed"), "ms");
  const char* columns[] = {"mean", "p50", "p90", "p95", "p99", "max"};
  for (const char* column : columns) std::printf(" %9s", column);
  for (const char* time : kTimes) {
    std::printf("\n%-6s", time);
    for (const char* column : columns) {
      const double value = measures.at(fmt::format("{}_{}_s", time, column));
      if (std::isnan(value)) std::printf(" %9s", "-");
      else std::printf(" %9.1f", 1e3 * value);
    }
  }
  std::printf("\n\n%.2f requests/s, %.1f answer tokens/s, %.1f prompt tokens/s\n", measures.at("requests_per_second"),
              measures.at("tokens_per_second"), measures.at("prompt_tokens_per_second"));
}

json numbers_json(const Measures& measures) {
  json numbers = json::object();
  for (const auto& [name, value] : measures) numbers[name] = std::isnan(value) ? json(nullptr) : json(value);
  return numbers;
}

}  // namespace

Result<int> bench_load(const BenchLoadOptions& options, const CommonOptions& common) {
  const Measures names = measures_of({Answered{}}, 1);
  std::vector<FailIf> conditions;
  for (const std::string& text : options.fail_if) conditions.push_back(TRY(FailIf::parse(text, names)));
  TRY(ask(options.api, "GET", "/v1/cluster"));  // who cannot be reached is no slow server
  const SteadyClock::time_point begin = SteadyClock::now();
  const std::vector<Answered> all = run_clients(options, common.quiet);
  const double elapsed = seconds_since(begin);
  const auto refused = std::ranges::find_if(all, [](const Answered& each) { return each.error.has_value(); });
  if (std::ranges::all_of(all, [](const Answered& each) { return each.error.has_value(); }))
    return std::unexpected(*refused->error);
  const Measures measures = measures_of(all, elapsed);
  json missed = json::array();
  std::vector<std::string> sentences;
  for (const FailIf& condition : conditions) {
    if (!condition.holds(measures)) continue;
    missed.push_back(condition.text());
    sentences.push_back(condition.sentence(measures));
  }
  const bool is_missed = !missed.empty();
  if (common.json()) {
    json result = numbers_json(measures);
    result.update(
        {{"requests", all.size()}, {"clients", clients_of(options)}, {"elapsed_s", elapsed}, {"missed", missed}});
    print_json(result);
  } else {
    print_table(measures, all, options, elapsed);
  }
  if (refused != all.end()) std::fprintf(stderr, "runahead: the first failure: %s\n", refused->error->message.c_str());
  for (const std::string& sentence : sentences) std::fprintf(stderr, "runahead: %s\n", sentence.c_str());
  return is_missed ? kMissed : 0;
}

void add_bench_load_flags(CLI::App& command, BenchLoadOptions& options) {
  add_client_flags(command, options.api);
  command.add_option("--prompt-tokens", options.prompt_tokens, "load: prompt lengths, in turn")
      ->delimiter(',')
      ->check(whole_number(1, 1 << 20));
  command.add_option("--answer-tokens", options.answer_tokens, "load: tokens of each answer")
      ->check(whole_number(1, 1 << 20));
  command.add_option("--clients", options.clients, "load: how many ask at once")->check(whole_number(1, 512));
  command.add_option("--requests", options.requests, "load: how many in all")->check(whole_number(1, 1'000'000));
  command
      .add_option("--fail-if", options.fail_if,
                  "load: exit with 6 if this holds: ttft_p95>2s, tpot_mean>50ms, tokens_per_second<100, "
                  "failed_ratio>1%; with commas, or again, for more; default: none")
      ->delimiter(',');
}

}  // namespace runahead
