// runahead coordinator, prefill, decode: one process each of a cluster.
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/coordinator_service.h"
#include "services/worker_service.h"

namespace runahead {
namespace {

// How a local cluster starts its children; nothing for people.
void add_child_flags(CLI::App& command, int& announce_fd, int& parent_pid) {
  command.add_option("--announce-fd", announce_fd, "where to say that it is ready")->group("");
  command.add_option("--parent-pid", parent_pid, "end with this process")->group("");
}

void add_worker(CommandLine& line, WorkerKind role, const std::string& name, const std::string& summary) {
  auto options = std::make_shared<WorkerServiceOptions>();
  options->role = role;
  CLI::App* command =
      line.add(name, summary, [options](const CommonOptions&) { return run_worker_service(*options); });
  command->add_option("-m,--model", options->model, "path of a GGUF file, or a short name (smollm2)");
  command->add_option("--coordinator", options->coordinator, "host:port of the coordinator's control plane");
  command->add_option("--compute", options->compute, "auto, fp32, bf16, int16 or int8; the same in the whole cluster");
  command->add_option("--threads", options->threads, "compute threads")->check(CLI::Range(1, 256));
  add_packed_cache_flag(*command, options->packed_cache);
  command->add_option("--transport", options->transport, "of K/V pages: auto, tcp or ucx");
  command->add_option("--data-listen", options->data_listen, "host:port for K/V pages (tcp); port 0 takes a free one");
  command->add_option("--advertise", options->advertise, "host that the other workers reach this one by");
  command->add_option("--admin", options->admin, "host:port of /livez, /readyz, /metrics; without it there are none");
  command->add_option("--name", options->name, "for people: in logs, reports and /v1/cluster");
  command->add_option("--kv-memory-mib", options->kv_memory_mib, "memory of the K/V pages; 0 chooses")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--insecure-network", options->insecure_network, "listen beyond loopback; there is no TLS yet");
  command->add_flag("--progress", options->progress, "show a bar while the weights load");
  command->add_option("--sharers", options->sharers, "workers that share the memory of this machine")->group("");
  add_child_flags(*command, options->announce_fd, options->parent_pid);
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
  CLI::App* command = line.add("coordinator", "run the coordinator with the HTTP gateway",
                               [options](const CommonOptions&) { return run_coordinator_service(*options); });
  command->add_option("-m,--model", options->model, "path of the workers' GGUF file (tokenizer, template), or a short name");
  command->add_option("--listen", options->listen, "host:port of the control plane; port 0 takes a free one");
  command->add_option("--http", options->http, "host:port of the API; port 0 takes a free one");
  command->add_option("--job-store", options->job_store, "SQLite file of /v1/jobs; without it jobs end with the process");
  command->add_option("--api-keys", options->api_keys, "file with one API key a line; without it the API is open");
  command->add_flag("--insecure-network", options->insecure_network, "listen beyond loopback; there is no TLS yet");
  add_child_flags(*command, options->announce_fd, options->parent_pid);
}

}  // namespace runahead
