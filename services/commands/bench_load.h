// `runahead bench load`: closed-loop clients against the API of a running cluster, as its users see it: time to first token, time
// per output token, whole answers, throughput. Each client sends its next request when it has its answer; no two prompts begin
// alike, and none finds anything in the prefix cache.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "services/commands/api_client.h"
#include "services/commands/command_line.h"

namespace runahead {

struct BenchLoadOptions {
  ClientOptions api;
  std::vector<int> prompt_tokens = {512};  // in turn
  int answer_tokens = 32, clients = 4, requests = 32;
  std::vector<std::string> fail_if;
};

void add_bench_load_flags(CLI::App& command, BenchLoadOptions& options);
// The exit code: 0, or kMissed. An error if none was answered, for then there is nothing to measure.
Result<int> bench_load(const BenchLoadOptions& options, const CommonOptions& common);

}  // namespace runahead
