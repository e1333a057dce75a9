#include "services/process/worker_service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "actors/worker/decode_worker.h"
#include "actors/worker/prefill_worker.h"
#include "actors/worker/thread_lane.h"
#include "base/log.h"
#include "base/machine_limits.h"
#include "base/utf8.h"
#include "services/engine/engine_loading.h"
#include "services/engine/engine_profile.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"
#include "services/engine/token_tree_loading.h"
#include "services/metrics/worker_metrics.h"
#include "services/process/admin_endpoints.h"
#include "services/process/announcer.h"
#include "services/process/failpoint_planes.h"
#include "services/process/memory_sum.h"
#include "services/process/process.h"
#include "services/version.h"
#include "transport/control/tcp_control.h"
#include "transport/kv/kv_address.h"
#include "transport/kv/select_transport.h"

namespace runahead {
namespace {

// Of what is free on a device beside the weights: the rest is for activations, which come and go with requests.
constexpr double kDevicePagesShare = 0.6;
constexpr int64_t kDefaultContexts = 4;  // full contexts that fit into the default pool: requests in flight at once

// What was asked for, if this process may have so much; a device says itself what it has.
Result<int64_t> pages_asked_for(int64_t mib, int64_t page_bytes, KvPlace place, const MachineLimits& limits) {
  for (const MemoryBound& bound : limits.memory) {
    if (place == KvPlace::kDevice) break;
    const bool own = bound.scope == MemoryBound::Scope::kProcess;
    const uint64_t most = own ? bound.free_bytes() : bound.limit_bytes;
    if (static_cast<uint64_t>(mib) << 20 > most)
      return fail(ErrorCode::kInvalidConfig,
                  fmt::format("--kv-memory-mib {} cannot be had: {} allows {}{}", mib, bound.what, to_text_bytes(most),
                              own ? " more" : ""),
                  "kv-memory-mib");
  }
  return std::max<int64_t>(1, (mib << 20) / page_bytes);
}

// Four full contexts, or what the machine leaves.
Result<int64_t> pages_by_default(const WorkerEngine& worker, int sharers, KvPlace place, const MachineLimits& limits) {
  const Engine& engine = *worker.engine;
  const MemoryShare share = default_kv_share(
      limits, {.weights_bytes = worker.host_bytes, .weights_shared = worker.host_bytes_shared, .sharers = sharers});
  const int64_t layers = engine.shape().num_layers, context = engine.shape().context_len;
  const int64_t wanted = kDefaultContexts * layers * pages_for(static_cast<int32_t>(context));
  std::string bound = fmt::format("{} of {}, {} in use", share.by->what, to_text_bytes(share.by->limit_bytes),
                                  to_text_bytes(share.by->used_bytes));
  const auto on_host = static_cast<int64_t>(share.bytes / engine.page_bytes());
  int64_t pages = place == KvPlace::kHost ? std::min(wanted, on_host) : wanted;
  if (worker.device_bytes_free) {
    const double share_of_device = kDevicePagesShare * static_cast<double>(*worker.device_bytes_free) / sharers;
    const auto fit = static_cast<int64_t>(share_of_device / static_cast<double>(engine.page_bytes()));
    if (fit < pages)
      bound = fmt::format("the device's {} beside the weights", to_text_bytes(*worker.device_bytes_free));
    pages = std::min(pages, fit);
  }
  if (pages < layers)
    return fail(ErrorCode::kInvalidConfig,
                fmt::format("there is no room for K/V pages beside {} of weights: {}; raise it, start fewer "
                            "workers, or say by --kv-memory-mib how much to take",
                            to_text_bytes(worker.host_bytes), bound),
                "kv-memory-mib");
  const int64_t tokens = pages / layers * kPageTokens;
  if (pages < wanted)
    log::line(tokens < context ? log::Level::kWarn : log::Level::kInfo,
              "K/V pages hold {} tokens, for so much does {} leave (--kv-memory-mib takes more)", tokens, bound);
  return pages;
}

Result<int64_t> pool_pages(const WorkerEngine& worker, KvPlace place, const WorkerServiceOptions& options) {
  const MachineLimits limits = machine_limits();
  if (options.engine.threads > limits.usable_cpus())
    log::warn("{} compute threads share {:.3g} CPUs ({}), which is slower than --threads {}", options.engine.threads,
              limits.fewest_cpus().cpus, limits.fewest_cpus().what, limits.usable_cpus());
  if (options.kv_memory_mib == 0) return pages_by_default(worker, options.sharers, place, limits);
  return pages_asked_for(options.kv_memory_mib, static_cast<int64_t>(worker.engine->page_bytes()), place, limits);
}

// Of what is in work at once, which the pool bounds: a token of it has K/V pages here, a rank before the last those of a quarter
// of the layers.
uint64_t work_bytes(const Engine& engine, WorkerKind role, int64_t pages) {
  const int32_t layers = engine.shape().num_layers;
  const auto row_of_logits = static_cast<uint64_t>(engine.shape().vocab_size) * sizeof(float);
  const uint64_t grammars = limits::kGrammarsKept * limits::kGrammarHeldBytes;
  if (role == WorkerKind::kDecode) {
    const auto rows = static_cast<uint64_t>(attempts_for_pool(pages, layers));
    return engine.hidden_bytes(static_cast<int64_t>(rows * kPageTokens)) + rows * row_of_logits + grammars;
  }
  int32_t whole_layers = 0;  // a token may have no page in the others
  for (int32_t layer = 0; layer < layers; ++layer) whole_layers += engine.shape().window(layer) == 0 ? 1 : 0;
  const int64_t tokens = pages / kv_layers_at_once(std::max(1, whole_layers), false) * kPageTokens;
  return engine.hidden_bytes(tokens) + limits::kScoredRowsMax * row_of_logits + grammars;
}

Result<MemorySum> bound_memory(const WorkerEngine& worker, KvPlace place, const WorkerServiceOptions& options,
                               int64_t pages) {
  const uint64_t held = held_bytes(), private_weights = worker.host_bytes_shared ? 0 : worker.host_bytes;
  const uint64_t page_bytes = place == KvPlace::kHost ? worker.engine->page_bytes() : 0;
  const WorkerLoad load{.program_bytes = held - std::min(held, private_weights),
                        .weights_bytes = worker.host_bytes,
                        .pool_bytes = static_cast<uint64_t>(pages) * page_bytes,
                        .work_bytes = work_bytes(*worker.engine, options.role, pages)};
  const MemoryBudget budget = memory_budget(machine_limits(), load.program_bytes + load.weights_bytes);
  MemorySum sum = TRY(fit_worker(load, budget));
  log::line(sum.total() > budget.bytes ? log::Level::kWarn : log::Level::kInfo, "memory: at most {}; {} allows {}",
            to_text(sum), budget.by, to_text_bytes(budget.bytes));
  return sum;
}

std::string default_name() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return std::string(host) + ":" + std::to_string(getpid());
}

Result<KvTransportOptions> transport_options(const WorkerServiceOptions& options) {
  const HostPort listen = TRY(parse_host_port(options.data_listen));
  KvTransportOptions transport{
      .incarnation = random_seed() | 1, .listen = listen, .allow_remote = options.insecure_network};
  if (!options.advertise.empty()) transport.advertise = TRY(parse_advertised(options.advertise, transport.listen.port));
  return transport;
}

// Peers would fail one request after the other at an address that not even this worker reaches. All transports between processes
// meet on a TCP listener: the last one's stands for all.
Task<void> check_own_address(std::string address, const Clock& clock, Deadline deadline) {
  const std::string last = address.substr(address.rfind(kBetweenKvAddresses) + 1);
  const auto own = parse_kv_address(last, kv_transport_of(last));
  if (!own) co_return Result<void>{};
  auto reached = co_await connect_tcp(own->place, clock, deadline);
  if (!reached)
    co_return fail(ErrorCode::kUnavailable, "this worker does not reach its own K/V address " + to_string(own->place) +
                                                ", and so will no other (" + reached.error().message +
                                                "); give --advertise an address of this machine");
  co_return Result<void>{};
}

// Everything a worker is made of, in the order in which it is built; destroyed in reverse.
struct WorkerParts {
  ServiceProcess process;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<KvPool> pool;
  std::unique_ptr<ThreadLane> lane;
  std::unique_ptr<WorkerMetrics> metrics;
  std::unique_ptr<grammar::Grammars> grammars;
  std::shared_ptr<TlsIdentity> identity;  // none: plain
  std::unique_ptr<KvTransport> kv;
  HostPort coordinator;
  std::optional<std::string> derive_from;  // the wildcard that is listened on, if nobody said what peers connect to
  std::string checked_address;  // of K/V, as it was last seen to be reached
  std::shared_ptr<Failpoint> failpoint;  // none but in tests
  WorkerOptions worker_options;

  Task<std::unique_ptr<ControlPlane>> connect_control(Deadline deadline) {
    auto client =
        std::make_unique<TcpControlClient>(process.io().get_executor(), process.clock(), coordinator, identity);
    auto connected = co_await client->connect(deadline);
    CO_TRY(connected);
    if (derive_from) {
      auto host = advertised_by(*derive_from, client->local_address());
      kv->advertise(CO_TRY(host));
    }
    if (kv->address().empty())
      co_return fail(ErrorCode::kInvalidConfig,
                     kv->name() +
                         " has no address here that peers can use: start all workers with "
                         "--transport tcp or auto",
                     "transport");
    if (checked_address != kv->address()) {
      auto checked = co_await check_own_address(kv->address(), process.clock(), deadline);
      CO_TRY(checked);
      checked_address = kv->address();
    }
    if (failpoint)
      co_return with_failpoint(std::unique_ptr<ControlPlane>(std::move(client)), failpoint, process.io().get_executor(),
                               process.clock());
    co_return std::unique_ptr<ControlPlane>(std::move(client));
  }

  WorkerEnv env() {
    const auto executor = process.io().get_executor();
    return {.executor = executor,
            .clock = process.clock(),
            .rng = process.rng(),
            .kv = *kv,
            .lane = *lane,
            .engine = *engine,
            .pool = *pool,
            .metrics = *metrics,
            .grammars = *grammars,
            .connect = [this](Deadline deadline) { return connect_control(deadline); }};
  }
};

// Whom the worker talks to, and as whom.
Result<void> set_up_peers(WorkerParts& parts, const WorkerServiceOptions& options) {
  const Result<HostPort> coordinator = parse_destination(options.coordinator);
  if (!coordinator) return fail(coordinator.error().code, coordinator.error().message, "coordinator");
  parts.coordinator = *coordinator;
  parts.failpoint = TRY(failpoint_of(options.role == WorkerKind::kPrefill ? "prefill" : "decode"));
  const TlsRole role = options.role == WorkerKind::kPrefill ? TlsRole::kPrefill : TlsRole::kDecode;
  if (options.tls.wanted()) parts.identity = TRY(TlsIdentity::open(options.tls, role, parts.process.clock()));
  if (options.authenticate_pages && !parts.identity)
    return fail(
        ErrorCode::kInvalidConfig,
        "pages are authenticated by keys that travel within TLS: --authenticate-pages needs --tls-cert, --tls-key and "
        "--tls-ca",
        "authenticate-pages");
  return {};
}

std::unique_ptr<WorkerMetrics> make_metrics(WorkerParts& parts, const WorkerServiceOptions& options) {
  auto metrics =
      std::make_unique<WorkerMetrics>(ProcessInfo{.role = options.role == WorkerKind::kPrefill ? "prefill" : "decode",
                                                  .version = kVersion,
                                                  .revision = kRevision,
                                                  .model_name = model_name_of(options.engine.model.name)});
  parts.process.on_stall([to = metrics.get()](double seconds) { to->loop_stalled(seconds); });
  if (parts.identity) parts.identity->on_refusal([to = metrics.get()](TlsRefusal why) { to->tls_refused(why); });
  return metrics;
}

Result<void> build(WorkerParts& parts, const WorkerServiceOptions& options) {
  TRY(set_up_peers(parts, options));
  KvTransportOptions kv_options = TRY(transport_options(options));
  kv_options.identity = parts.identity;
  kv_options.authenticate_pages = options.authenticate_pages;
  if (!kv_options.advertise && is_wildcard(kv_options.listen.host)) parts.derive_from = kv_options.listen.host;
  const Time load_begin = parts.process.clock().now();
  WorkerEngine opened = TRY(open_worker_engine(options.engine, options.progress));
  const double load_seconds = seconds(parts.process.clock().now() - load_begin);
  const KvPlace place = moves_device_pages(options.transport) ? KvPlace::kDevice : KvPlace::kHost;
  const int64_t pages = TRY(pool_pages(opened, place, options));
  const MemorySum memory = TRY(bound_memory(opened, place, options, pages));
  parts.engine = std::move(opened.engine);
  const EngineProfile profile = TRY(measure_engine(*parts.engine, parts.process.clock()));
  parts.pool = TRY(make_kv_pool(*parts.engine, pages, place));
  parts.grammars = std::make_unique<grammar::Grammars>(token_tree_of(options.engine.model));
  parts.lane = std::make_unique<ThreadLane>(parts.process.clock());
  parts.metrics = make_metrics(parts, options);
  for (const MemorySum::Part& part : memory.parts) parts.metrics->memory_bound(part.name, part.bytes);
  parts.metrics->kernels_chosen(prepare_kernels().timings);
  parts.metrics->model_loaded(parts.engine->compute_name(), parts.engine->shape().context_len, load_seconds);
  kv_options.device = parts.engine->device();
  parts.kv =
      TRY(make_kv_transport(options.transport, kv_options, parts.process.io().get_executor(), parts.process.clock()));
  if (parts.failpoint) parts.kv = with_failpoint(std::move(parts.kv), parts.failpoint);
  TRY(parts.kv->register_memory(parts.pool->memory()));
  parts.worker_options = {
      .name = valid_utf8(options.name.empty() ? default_name() : options.name),
      .device = opened.device,
      .seconds_per_token = profile.seconds_per_token,
      .seconds_per_pair = profile.seconds_per_pair,
      .attempts_max = attempts_for_pool(parts.pool->usage().total, parts.engine->shape().num_layers),
      .decode_slots = options.slots};
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
  nlohmann::json addresses = {{"kv", parts.kv->address()}};
  parts.worker_options.on_registered = [&, told = false]() mutable {
    if (!std::exchange(told, true)) announcer.ready(addresses);
  };
  Worker worker(parts.env(), parts.worker_options);
  std::unique_ptr<AdminEndpoints> admin;
  if (!options.admin.empty()) {
    const auto reasons = [&worker]() -> std::vector<std::string> {
      if (worker.registered()) return {};
      return {"the coordinator has not accepted this worker yet"};
    };
    admin = std::make_unique<AdminEndpoints>(
        parts.process.io().get_executor(), parts.process.clock(),
        AdminEndpoints::Sources{reasons, [metrics = parts.metrics.get()] { return metrics->text(); }});
    TRY(admin->listen(TRY(parse_host_port(options.admin)), options.insecure_network || options.insecure_http,
                      options.http_hosts));
    addresses["admin"] = admin->address();
  }
  log::info("{}: {}; {}; {} K/V pages of {} KiB", parts.worker_options.name, parts.worker_options.device,
            parts.kv->describe(), parts.pool->usage().total, parts.pool->page_bytes() >> 10);
  return parts.process.run(
      serve(worker, parts, admin.get()), [&worker] { worker.drain(); }, [&worker] { worker.stop(); });
}

}  // namespace

Result<void> run_worker_service(const WorkerServiceOptions& options) {
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
