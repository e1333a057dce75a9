#include "services/worker_service.h"

#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "actors/decode_worker.h"
#include "actors/prefill_worker.h"
#include "actors/thread_lane.h"
#include "base/log.h"
#include "services/admin_endpoints.h"
#include "services/announcer.h"
#include "services/engine_loading.h"
#include "services/engine_profile.h"
#include "services/kernel_timings.h"
#include "services/metrics.h"
#include "services/process.h"
#include "services/version.h"
#include "transport/select_transport.h"
#include "transport/tcp_control.h"

namespace runahead {
namespace {

constexpr int64_t kDefaultContexts = 4;  // full contexts that fit into the default pool: requests in flight at once
constexpr int64_t kMemoryShare = 8;      // the default pool takes at most an eighth of the memory: workers share machines

int64_t pool_pages(const Engine& engine, int64_t kv_memory_mib) {
  const auto page_bytes = static_cast<int64_t>(engine.page_bytes());
  if (kv_memory_mib > 0) return std::max<int64_t>(1, (kv_memory_mib << 20) / page_bytes);
  struct sysinfo info {};
  sysinfo(&info);
  const int64_t share = static_cast<int64_t>(info.totalram) * info.mem_unit / kMemoryShare / page_bytes;
  const ModelShape& shape = engine.shape();
  return std::max<int64_t>(1, std::min(share, kDefaultContexts * shape.num_layers * pages_for(shape.context_len)));
}

std::string default_name() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return std::string(host) + ":" + std::to_string(getpid());
}

Result<KvTransportOptions> transport_options(const WorkerServiceOptions& options) {
  const HostPort data = TRY(parse_host_port(options.data_listen));
  return KvTransportOptions{.incarnation = random_seed() | 1, .listen_host = data.host, .listen_port = data.port,
                            .advertise_host = options.advertise, .allow_remote = options.insecure_network};
}

Task<std::unique_ptr<ControlPlane>> connect_control(asio::any_io_executor executor, const Clock& clock, HostPort server,
                                                    Deadline deadline) {
  auto client = std::make_unique<TcpControlClient>(executor, clock, server);
  auto connected = co_await client->connect(deadline);
  CO_TRY(connected);
  co_return std::unique_ptr<ControlPlane>(std::move(client));
}

// Everything a worker is made of, in the order in which it is built; destroyed in reverse.
struct WorkerParts {
  ServiceProcess process;
  std::unique_ptr<Transformer> engine;
  std::unique_ptr<KvPool> pool;
  std::unique_ptr<ThreadLane> lane;
  std::unique_ptr<WorkerMetrics> metrics;
  std::unique_ptr<KvTransport> kv;
  HostPort coordinator;
  WorkerOptions worker_options;

  WorkerEnv env() {
    const auto executor = process.io().get_executor();
    return {.executor = executor, .clock = process.clock(), .rng = process.rng(), .kv = *kv, .lane = *lane,
            .engine = *engine, .pool = *pool, .metrics = *metrics,
            .connect = [this, executor](Deadline deadline) {
              return connect_control(executor, process.clock(), coordinator, deadline);
            }};
  }
};

Result<void> build(WorkerParts& parts, const WorkerServiceOptions& options) {
  parts.coordinator = TRY(parse_host_port(options.coordinator));
  KvTransportOptions kv_options = TRY(transport_options(options));
  const Time load_begin = parts.process.clock().now();
  parts.engine = TRY(open_engine(options.model, options.compute, options.threads, options.packed_cache, options.progress));
  const double load_seconds = seconds(parts.process.clock().now() - load_begin);
  const EngineProfile profile = measure_engine(*parts.engine, parts.process.clock());
  parts.pool = std::make_unique<KvPool>(parts.engine->page_bytes(), pool_pages(*parts.engine, options.kv_memory_mib));
  parts.lane = std::make_unique<ThreadLane>(parts.process.clock());
  parts.metrics = std::make_unique<WorkerMetrics>(
      ProcessInfo{.role = options.role == WorkerKind::kPrefill ? "prefill" : "decode", .version = kVersion,
                  .revision = kRevision, .model_name = std::filesystem::path(options.model).stem().string()});
  parts.metrics->kernels_chosen(prepare_kernels().timings);
  parts.metrics->model_loaded(parts.engine->compute_name(), parts.engine->shape().context_len, load_seconds);
  parts.kv = TRY(make_kv_transport(options.transport, kv_options, parts.process.io().get_executor(), parts.process.clock()));
  TRY(parts.kv->register_memory(parts.pool->memory()));
  parts.worker_options = {.name = options.name.empty() ? default_name() : options.name,
                          .device = device_text(*parts.engine),
                          .linear_seconds_per_token = profile.linear_seconds_per_token,
                          .attention_seconds_per_pair = profile.attention_seconds_per_pair};
  return {};
}

template <class Worker>
Task<void> serve(Worker& worker, WorkerParts& parts, AdminEndpoints* admin) {
  auto result = co_await worker.run();
  if (admin) co_await admin->shutdown();
  co_await parts.kv->shutdown();
  co_return result;
}

template <class Worker>
Result<void> run_role(WorkerParts& parts, const WorkerServiceOptions& options, const Announcer& announcer) {
  Worker worker(parts.env(), parts.worker_options);
  std::unique_ptr<AdminEndpoints> admin;
  nlohmann::json addresses = {{"kv", parts.kv->address()}};
  if (!options.admin.empty()) {
    const auto reasons = [&worker]() -> std::vector<std::string> {
      if (worker.registered()) return {};
      return {"the coordinator has not accepted this worker yet"};
    };
    admin = std::make_unique<AdminEndpoints>(
        parts.process.io().get_executor(), parts.process.clock(),
        AdminEndpoints::Sources{reasons, [metrics = parts.metrics.get()] { return metrics->text(); }});
    TRY(admin->listen(TRY(parse_host_port(options.admin)), options.insecure_network));
    addresses["admin"] = admin->address();
  }
  log::info("{}: {}; {}; {} K/V pages of {} KiB", parts.worker_options.name, parts.worker_options.device,
            parts.kv->describe(), parts.pool->usage().total, parts.pool->page_bytes() >> 10);
  announcer.ready(addresses);
  return parts.process.run(serve(worker, parts, admin.get()), [&worker] { worker.drain(); }, [&worker] { worker.stop(); });
}

}  // namespace

Result<void> run_worker_service(const WorkerServiceOptions& options) {
  if (options.parent_pid > 0) die_with_parent(options.parent_pid);
  const Announcer announcer(options.announce_fd);
  WorkerParts parts;
  Result<void> result = build(parts, options);
  if (result)
    result = options.role == WorkerKind::kPrefill ? run_role<PrefillWorker>(parts, options, announcer)
                                                  : run_role<DecodeWorker>(parts, options, announcer);
  if (!result) announcer.error(result.error());
  return result;
}

}  // namespace runahead
