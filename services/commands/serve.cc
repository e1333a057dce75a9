// runahead serve: a whole cluster on this machine until Ctrl-C: coordinator with gateway, prefill workers, a decode worker.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "services/cluster/local_cluster.h"
#include "services/commands/api_flags.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"

namespace runahead {
namespace {

struct ServeOptions {
  LocalClusterOptions cluster;
  ApiFrontOptions api;  // checked here, passed on as flags
  const CLI::App* command = nullptr;
  bool insecure_http = false;
};

Result<void> serve(const ServeOptions& options, const CommonOptions& common) {
  LocalClusterOptions cluster_options = options.cluster;
  cluster_options.log_level = common.effective_log_level();
  cluster_options.log_format = common.log_format;
  cluster_options.progress = !common.quiet;
  cluster_options.coordinator_flags = given_api_flags(*options.command);
  if (options.insecure_http) cluster_options.coordinator_flags.push_back("--insecure-http");
  LocalCluster cluster = TRY(LocalCluster::start(cluster_options));
  if (common.json()) {
    print_json({{"http", cluster.http_address()}});
  } else {
    std::printf("http://%s is ready: POST /v1/chat/completions, /v1/completions, /v1/jobs; GET /metrics, /v1/cluster\n",
                cluster.http_address().c_str());
  }
  std::fflush(stdout);
  TRY(cluster.supervise());
  cluster.stop();
  return {};
}

}  // namespace

void add_serve(CommandLine& line) {
  auto options = std::make_shared<ServeOptions>();
  options->cluster.http = "127.0.0.1:8000";
  CLI::App* command = line.add("serve", "serve the API from a whole cluster on this machine, until Ctrl-C",
                               [options](const CommonOptions& common) { return serve(*options, common); });
  add_cluster_flags(*command, options->cluster);
  add_generation_flags(*command, options->cluster.generation);
  command->add_option("--http", options->cluster.http, "host:port of the API; port 0 takes a free one");
  command
      ->add_option("--slots", options->cluster.slots,
                   "answers that one decode step carries on; 0: all that the memory holds")
      ->check(whole_number(0, limits::kAttemptsPerWorkerMax));
  command->add_option("--job-store", options->cluster.job_store,
                      "SQLite file of /v1/jobs; without it jobs end with the process");
  add_api_flags(*command, options->api);
  options->command = command;
  command->add_flag("--insecure-http", options->insecure_http,
                    "let --http listen beyond loopback: it has no TLS of its own");
  command->add_flag("--insecure-network", options->insecure_http, "the same, as other commands have it");
}

}  // namespace runahead
