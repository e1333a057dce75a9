// runahead coordinator, prefill, decode: one process each of a cluster.
#include <fmt/ranges.h>

#include "base/limits.h"
#include "services/commands/api_flags.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/process/coordinator_service.h"
#include "services/process/worker_service.h"
#include "transport/kv/select_transport.h"

namespace runahead {
namespace {

// How a local cluster starts its children; nothing for people.
void add_child_flag(CLI::App& command, int& announce_fd) {
  command.add_option("--announce-fd", announce_fd, "where to say that it is ready")->group("");
}

void add_network_flags(CLI::App& command, TlsFiles& tls, bool& insecure_network, bool& insecure_http,
                       const std::string& http) {
  command.add_option("--tls-cert", tls.certificate,
                     "PEM file: this process's certificate, as `runahead certs` makes it; without it there is no TLS");
  command.add_option("--tls-key", tls.key, "PEM file: the key of the certificate; without it there is no TLS");
  command.add_option("--tls-ca", tls.authorities,
                     "PEM file: the authority that the others' certificates come from; without it there is no TLS");
  command.add_option("--tls-revoked", tls.revoked,
                     "PEM file: the authority's list of revoked certificates; without it none is");
  command.add_flag("--insecure-network", insecure_network, "listen beyond loopback without TLS");
  command.add_flag("--insecure-http", insecure_http,
                   "let " + http + " listen beyond loopback: it has no TLS of its own");
}

// A child's parent has been told, and says it once.
Result<void> told_to_parent(Result<void> result, int announce_fd) {
  if (!result && announce_fd >= 0) result.error().message.clear();
  return result;
}

void add_worker(CommandLine& line, WorkerKind role, const std::string& name, const std::string& summary) {
  auto options = std::make_shared<WorkerServiceOptions>();
  options->role = role;
  CLI::App* command = line.add(name, summary, [options](const CommonOptions& common) {
    WorkerServiceOptions chosen = *options;
    const bool is_child = chosen.announce_fd >= 0;  // of a local cluster, which chooses one to show how far all are
    chosen.progress = !common.quiet && (chosen.progress || !is_child);
    return told_to_parent(run_worker_service(chosen), chosen.announce_fd);
  });
  add_model_flags(*command, options->engine.model);
  command->add_option("--coordinator", options->coordinator, "host:port of the coordinator's control plane");
  add_compute_flag(*command, options->engine.compute);
  add_threads_flag(*command, options->engine.threads);
  add_packed_cache_flag(*command, options->engine.packed_cache);
  command->add_option("--transport", options->transport,
                      "of K/V pages: " + fmt::format("{}", fmt::join(kv_transport_choices(), ", ")));
  command->add_flag("--authenticate-pages", options->authenticate_pages,
                    "check who made each page that UCX moves outside of TLS; all workers or none");
  command->add_option("--data-listen", options->data_listen, "host:port for K/V pages (tcp); port 0 takes a free one");
  command->add_option("--advertise", options->advertise,
                      "host that the other workers reach this one by; default: that of --data-listen");
  command->add_option("--admin", options->admin, "host:port of /livez, /readyz, /metrics; without it there are none");
  add_http_hosts_flag(*command, options->http_hosts, "--admin");
  command->add_option("--name", options->name, "for people: in logs, reports and /v1/cluster; default: host:pid");
  command->add_option("--kv-memory-mib", options->kv_memory_mib, "memory of the K/V pages; 0 chooses")
      ->check(whole_number(0, 1 << 24));
  if (role == WorkerKind::kDecode)
    command
        ->add_option("--slots", options->slots, "answers that one decode step carries on; 0: all that the memory holds")
        ->check(whole_number(0, limits::kAttemptsPerWorkerMax));
  add_network_flags(*command, options->tls, options->insecure_network, options->insecure_http, "--admin");
  command->add_flag("--progress", options->progress, "show a bar while the weights load")->group("");
  command->add_option("--sharers", options->sharers, "workers that share the memory of this machine")->group("");
  add_child_flag(*command, options->announce_fd);
}

}  // namespace

void add_prefill(CommandLine& line) {
  add_worker(line, WorkerKind::kPrefill, "prefill", "run a prefill worker, one rank of the chain");
}

void add_decode(CommandLine& line) {
  add_worker(line, WorkerKind::kDecode, "decode", "run a decode worker, the end of the chain");
}

void add_coordinator(CommandLine& line) {
  auto options = std::make_shared<CoordinatorServiceOptions>();
  CLI::App* command =
      line.add("coordinator", "run the coordinator with the HTTP gateway", [options](const CommonOptions&) {
        return told_to_parent(run_coordinator_service(*options), options->announce_fd);
      });
  add_model_flags(*command, options->model);
  add_chat_template_flag(*command, options->chat_template);
  command->add_option(
      "--compute", options->compute,
      "of the workers: fp32, bf16, int16 or int8, or int16+kv8 and the like; auto: what the first pair of them runs");
  command
      ->add_option("--stall-timeout", options->stall_timeout_s,
                   "seconds without any progress until an attempt goes to other workers")
      ->check(real_number(1, 3600));
  command->add_option("--listen", options->listen, "host:port of the control plane; port 0 takes a free one");
  command->add_option("--http", options->http, "host:port of the API; port 0 takes a free one");
  add_split_table_flag(*command, options->split_table);
  add_prefix_cache_flag(*command, options->prefix_cache);
  command->add_option("--job-store", options->job_store,
                      "SQLite file of /v1/jobs; without it jobs end with the process");
  add_api_flags(*command, options->api);
  add_generation_flags(*command, options->generation);
  add_network_flags(*command, options->tls, options->insecure_network, options->insecure_http, "--http");
  add_child_flag(*command, options->announce_fd);
}

}  // namespace runahead
