#include "services/process/coordinator_service.h"

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "actors/coordinator/coordinator.h"
#include "base/async/gate.h"
#include "base/async/wake.h"
#include "base/log.h"
#include "base/utf8.h"
#include "base/wall_clock.h"
#include "model/transformer/transformer.h"
#include "services/engine/model_path.h"
#include "services/engine/speed_memory_file.h"
#include "services/engine/split_table_file.h"
#include "services/engine/text_codec_loading.h"
#include "services/job_store/sqlite_job_store.h"
#include "services/process/announcer.h"
#include "services/process/api_front.h"
#include "services/process/failpoint_planes.h"
#include "services/process/memory_sum.h"
#include "services/process/process.h"
#include "services/version.h"
#include "transport/control/tcp_control.h"

namespace runahead {
namespace {

// Everything the process is made of, in the order in which it is built; destroyed in reverse.
struct CoordinatorParts {
  ServiceProcess process;
  ModelConfig model;
  std::string model_name;
  std::unique_ptr<ModelTextCodec> codec;
  std::unique_ptr<CoordinatorMetrics> metrics;
  std::unique_ptr<SqliteJobStore> job_store;
  std::unique_ptr<FileStore> files;  // null: none
  JobStore::Loaded loaded;
  std::unique_ptr<TcpControlServer> control;
  std::unique_ptr<ControlPlane> failing_control;  // of a failpoint; null: none
  std::unique_ptr<Coordinator> coordinator;
  std::unique_ptr<ApiFront> front;
};

// Jobs in memory come with no durable epoch, and every start needs a higher one: then it is the time.
uint64_t epoch_of(const JobStore::Loaded& loaded, bool durable) {
  if (durable) return loaded.epoch;
  return static_cast<uint64_t>(unix_time_ms());
}

// Of the workers; empty: what the first pair of them runs.
Result<std::string> required_fingerprint(std::string_view content_hash, const std::string& compute) {
  const ComputeOption option = TRY(parse_compute_option(compute));
  return option.mode ? engine_fingerprint(content_hash, *option.mode, option.compact_pages) : std::string();
}

// Beside the job store, unless a flag names another folder: batches are jobs, and need both.
Result<std::unique_ptr<FileStore>> open_files(const CoordinatorServiceOptions& options) {
  FileStoreOptions files = options.api.files;
  if (options.job_store.empty() && !files.folder.empty())
    return fail(ErrorCode::kInvalidArgument, "files and batches need durable jobs; name a --job-store, too",
                "files-dir");
  if (options.job_store.empty()) return nullptr;
  if (files.folder.empty()) files.folder = options.job_store + "-files";
  std::unique_ptr<FileStore> store = TRY(FileStore::open(std::move(files)));
  for (const std::string& loss : store->damage()) log::error("files: {}", loss);
  return store;
}

Result<void> open_jobs(CoordinatorParts& parts, const CoordinatorServiceOptions& options) {
  parts.job_store = TRY(SqliteJobStore::open(options.job_store));
  parts.loaded = TRY(parts.job_store->load());
  for (const std::string& loss : parts.loaded.damage) log::error("job store: {}", loss);
  parts.files = TRY(open_files(options));
  return {};
}

// What all that may come at once may take, said, exported and, if this machine has less, made smaller or refused.
Result<void> bound_memory(GatewayOptions& gateway, const CoordinatorParts& parts, size_t upload_bytes) {
  const ApiLoad load{.program_bytes = held_bytes(),
                     .context_len = parts.model.shape.context_len,
                     .upload_bytes = parts.files ? upload_bytes : 0};
  const MemoryBudget budget = memory_budget(machine_limits(), load.program_bytes);
  const size_t connections = gateway.http.connections_max;
  const MemorySum sum = TRY(fit_coordinator(gateway, load, budget));
  log::info("memory: at most {}; {} allows {}", to_text(sum), budget.by, to_text_bytes(budget.bytes));
  if (gateway.http.connections_max < connections)
    log::warn("{} connections and {} of requests in work are what {} leaves; there is room for {} and {} with {}",
              gateway.http.connections_max, to_text_bytes(gateway.generation_bytes_max), budget.by, connections,
              to_text_bytes(limits::kGenerationBytesMax),
              to_text_bytes(coordinator_memory(GatewayOptions{}, load).total()));
  for (const MemorySum::Part& part : sum.parts) parts.metrics->memory_bound(part.name, part.bytes);
  return {};
}

ApiFrontOptions api_options(const CoordinatorParts& parts, const CoordinatorServiceOptions& options,
                            const HostPort& http) {
  ApiFrontOptions api = options.api;
  api.gateway.http.listen = http;
  api.gateway.http.allow_remote = options.insecure_network || options.insecure_http;
  api.gateway.model_name = parts.model_name;
  api.gateway.model_aliases = {"default", options.model.name};
  return api;
}

Result<std::unique_ptr<TcpControlServer>> listen_to_workers(ServiceProcess& process, CoordinatorMetrics& metrics,
                                                            const CoordinatorServiceOptions& options,
                                                            const HostPort& listen) {
  std::shared_ptr<TlsIdentity> identity;
  if (options.tls.wanted()) {
    identity = TRY(TlsIdentity::open(options.tls, TlsRole::kCoordinator, process.clock()));
    identity->on_refusal([&metrics](TlsRefusal why) { metrics.tls_refused(why); });
  }
  return TcpControlServer::create(
      process.io().get_executor(), process.clock(),
      {.listen = listen, .allow_remote = options.insecure_network, .identity = std::move(identity)});
}

Result<void> build(CoordinatorParts& parts, const CoordinatorServiceOptions& options) {
  const HostPort listen = TRY(parse_host_port(options.listen)), http = TRY(parse_host_port(options.http));
  const std::filesystem::path path = TRY(find_model(options.model.name));
  const Gguf file = TRY(open_model(options.model));
  const std::string hash = file.content_hash();  // this file and no other is what workers must run
  const std::string fingerprint = TRY(required_fingerprint(hash, options.compute));
  file.drop_pages();
  parts.model = TRY(read_model_config(file));
  parts.model_name = model_name_of(path);
  parts.codec = TRY(open_text_codec(file, options.chat_template, &local_time_now));
  const GenerationDefaults generation = TRY(load_generation_defaults(options.generation, path, file));
  parts.metrics = std::make_unique<CoordinatorMetrics>(
      ProcessInfo{.role = "coordinator", .version = kVersion, .revision = kRevision, .model_name = parts.model_name},
      options.api.metrics_compat == "vllm");
  parts.process.on_stall([metrics = parts.metrics.get()](double seconds) { metrics->loop_stalled(seconds); });
  std::optional<SplitTable> split_table;
  if (!options.split_table.empty()) split_table = TRY(read_split_table(options.split_table));
  TRY(open_jobs(parts, options));
  const auto executor = parts.process.io().get_executor();
  parts.control = TRY(listen_to_workers(parts.process, *parts.metrics, options, listen));
  if (auto failpoint = TRY(failpoint_of("coordinator")))
    parts.failing_control = with_failpoint(*parts.control, std::move(failpoint), executor, parts.process.clock());
  parts.coordinator = std::make_unique<Coordinator>(
      CoordinatorEnv{.executor = executor,
                     .clock = parts.process.clock(),
                     .rng = parts.process.rng(),
                     .control = parts.failing_control ? *parts.failing_control : *parts.control,
                     .metrics = *parts.metrics},
      CoordinatorOptions{.epoch = epoch_of(parts.loaded, !options.job_store.empty()),
                         .shape = parts.model.shape,
                         .model = model_fingerprint(hash),
                         .fingerprint = fingerprint,
                         .split_table = std::move(split_table),
                         .speeds = read_speed_memory(speed_memory_file()),
                         .prefix_cache = options.prefix_cache,
                         .stall_timeout = from_seconds(options.stall_timeout_s),
                         .queue_wait = options.api.queue_wait});
  ApiFrontOptions api = api_options(parts, options, http);
  api.gateway.generation_defaults = generation;
  TRY(bound_memory(api.gateway, parts, options.api.files.file_bytes_max));
  parts.front = std::make_unique<ApiFront>(ApiFrontEnv{.executor = executor,
                                                       .clock = parts.process.clock(),
                                                       .rng = parts.process.rng(),
                                                       .inference = *parts.coordinator,
                                                       .job_store = *parts.job_store,
                                                       .codec = *parts.codec,
                                                       .metrics = *parts.metrics,
                                                       .files = parts.files.get()},
                                           api);
  return parts.front->start(std::move(parts.loaded.unfinished));
}

Task<void> serve(CoordinatorParts& parts, Wake& stop_asked) {
  Gate gate(parts.process.io().get_executor(), parts.process.clock());
  gate.spawn(parts.coordinator->run());
  co_await stop_asked.wait();  // a signal notifies it
  co_await parts.coordinator->drain();
  co_await parts.front->shutdown();
  parts.coordinator->stop();
  co_await gate.close();
  co_await parts.control->shutdown();
  co_return Result<void>{};
}

Result<void> run_until_stopped(CoordinatorParts& parts, const CoordinatorServiceOptions& options,
                               const Announcer& announcer) {
  const std::string control = to_string({TRY(parse_host_port(options.listen)).host, parts.control->port()});
  log::info("API on http://{}, control plane on {}", parts.front->address(), control);
  nlohmann::json addresses = {{"http", parts.front->address()}, {"control", control}};
  if (!options.api.admin.empty()) {
    addresses["admin"] = parts.front->admin_address();
    log::info("probes and metrics on http://{}", parts.front->admin_address());
  }
  announcer.ready(addresses);
  Wake stop_asked(parts.process.io().get_executor(), parts.process.clock());
  return parts.process.run(serve(parts, stop_asked), [&] { stop_asked.notify(); }, [&] { parts.coordinator->stop(); });
}

}  // namespace

std::tm local_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

Result<void> run_coordinator_service(const CoordinatorServiceOptions& options) {
  const Announcer announcer(options.announce_fd);
  CoordinatorParts parts;
  Result<void> result = build(parts, options);
  if (result) {
    result = run_until_stopped(parts, options, announcer);
    add_to_speed_memory(speed_memory_file(), parts.coordinator->speeds());
  }
  if (!result) announcer.error(result.error());
  return result;
}

}  // namespace runahead
