#include "services/coordinator_service.h"

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "actors/coordinator.h"
#include "actors/gate.h"
#include "actors/wake.h"
#include "base/log.h"
#include "services/announcer.h"
#include "services/api_front.h"
#include "services/model_path.h"
#include "services/gateway/model_text_codec.h"
#include "services/process.h"
#include "services/sqlite_job_store.h"
#include "services/version.h"
#include "transport/tcp_control.h"

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
  JobStore::Loaded loaded;
  std::unique_ptr<TcpControlServer> control;
  std::unique_ptr<Coordinator> coordinator;
  std::unique_ptr<ApiFront> front;
};

// Jobs in memory come with no durable epoch, and every start needs a higher one: then it is the time.
uint64_t epoch_of(const JobStore::Loaded& loaded, bool durable) {
  if (durable) return loaded.epoch;
  return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch() / std::chrono::milliseconds(1));
}

Result<void> build(CoordinatorParts& parts, const CoordinatorServiceOptions& options) {
  const HostPort listen = TRY(parse_host_port(options.listen)), http = TRY(parse_host_port(options.http));
  const std::filesystem::path path = TRY(find_model(options.model));
  const Gguf file = TRY(Gguf::open(path));
  parts.model = TRY(read_model_config(file));
  parts.model_name = path.stem().string();
  parts.codec = TRY(ModelTextCodec::load(file, &local_time_now));
  parts.metrics = std::make_unique<CoordinatorMetrics>(
      ProcessInfo{.role = "coordinator", .version = kVersion, .revision = kRevision, .model_name = parts.model_name});
  parts.job_store = TRY(SqliteJobStore::open(options.job_store));
  parts.loaded = TRY(parts.job_store->load());
  const auto executor = parts.process.io().get_executor();
  parts.control = TRY(TcpControlServer::create(executor, parts.process.clock(),
                                               {.listen = listen, .allow_remote = options.insecure_network}));
  parts.coordinator = std::make_unique<Coordinator>(
      CoordinatorEnv{.executor = executor, .clock = parts.process.clock(), .rng = parts.process.rng(),
                     .control = *parts.control, .metrics = *parts.metrics},
      CoordinatorOptions{.epoch = epoch_of(parts.loaded, !options.job_store.empty()), .shape = parts.model.shape});
  parts.front = std::make_unique<ApiFront>(
      ApiFrontEnv{.executor = executor, .clock = parts.process.clock(), .rng = parts.process.rng(),
                  .inference = *parts.coordinator, .job_store = *parts.job_store, .codec = *parts.codec,
                  .metrics = *parts.metrics},
      ApiFrontOptions{.http = http, .allow_remote = options.insecure_network, .api_keys = options.api_keys,
                      .model_name = parts.model_name, .model_alias = options.model});
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

}  // namespace

std::tm local_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

Result<void> run_coordinator_service(const CoordinatorServiceOptions& options) {
  if (options.parent_pid > 0) die_with_parent(options.parent_pid);
  const Announcer announcer(options.announce_fd);
  CoordinatorParts parts;
  const Result<void> built = build(parts, options);
  if (!built) {
    announcer.error(built.error());
    return built;
  }
  const std::string control = to_string({TRY(parse_host_port(options.listen)).host, parts.control->port()});
  log::info("API on http://{}, control plane on {}", parts.front->address(), control);
  announcer.ready({{"http", parts.front->address()}, {"control", control}});
  Wake stop_asked(parts.process.io().get_executor(), parts.process.clock());
  return parts.process.run(serve(parts, stop_asked), [&] { stop_asked.notify(); }, [&] { parts.coordinator->stop(); });
}

}  // namespace runahead
