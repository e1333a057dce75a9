#include "services/cluster/actor_cluster.h"

#include "base/log.h"
#include "transport/kv/select_transport.h"

namespace runahead {

using namespace std::chrono_literals;

ActorCluster::ActorCluster(asio::any_io_executor executor, Clock& clock, Rng& rng, CoordinatorSink& metrics,
                           ActorClusterOptions options)
    : executor_(executor),
      clock_(clock),
      rng_(rng),
      metrics_(metrics),
      options_(std::move(options)),
      control_hub_(executor, clock),
      workers_gate_(executor, clock),
      coordinator_gate_(executor, clock) {}

namespace {

Task<std::unique_ptr<ControlPlane>> connect_to(MemoryControlHub* hub) { co_return hub->connect(); }

}  // namespace

Result<std::unique_ptr<ActorCluster::Worker>> ActorCluster::build_worker(int32_t index) {
  auto worker = std::make_unique<Worker>();
  worker->engine = TRY(options_.make_engine(index));
  const ModelShape& shape = worker->engine->shape();
  const int64_t pages = int64_t{options_.kv_contexts} * shape.num_layers * pages_for(shape.context_len);
  const KvPlace place = moves_device_pages(options_.transport) ? KvPlace::kDevice : KvPlace::kHost;
  worker->pool = TRY(make_kv_pool(*worker->engine, pages, place));
  worker->grammars = std::make_unique<grammar::Grammars>(options_.make_token_tree);
  worker->lane = std::make_unique<ThreadLane>(clock_);
  const KvTransportOptions kv_options{
      .incarnation = rng_.next() | 1, .hub = kv_hub_, .device = worker->engine->device()};
  worker->kv = TRY(make_kv_transport(options_.transport, kv_options, executor_, clock_));
  TRY(worker->kv->register_memory(worker->pool->memory()));
  const WorkerEnv env{.executor = executor_,
                      .clock = clock_,
                      .rng = rng_,
                      .kv = *worker->kv,
                      .lane = *worker->lane,
                      .engine = *worker->engine,
                      .pool = *worker->pool,
                      .metrics = worker_metrics_,
                      .grammars = *worker->grammars,
                      .connect = [this](Deadline) { return connect_to(&control_hub_); }};
  const bool prefill = index < options_.prefill_workers;
  const WorkerOptions options{.name = prefill ? "prefill-" + std::to_string(index) : "decode-0",
                              .device = "cpu " + worker->engine->compute_name() + ", in process",
                              .attempts_max = attempts_for_pool(worker->pool->usage().total, shape.num_layers)};
  if (prefill) {
    worker->prefill = std::make_unique<PrefillWorker>(env, options);
  } else {
    worker->decode = std::make_unique<DecodeWorker>(env, options);
  }
  return worker;
}

Result<void> ActorCluster::start() {
  for (int32_t index = 0; index <= options_.prefill_workers; ++index) workers_.push_back(TRY(build_worker(index)));
  const Engine& engine = *workers_.front()->engine;
  coordinator_ = std::make_unique<Coordinator>(
      CoordinatorEnv{
          .executor = executor_, .clock = clock_, .rng = rng_, .control = control_hub_.server(), .metrics = metrics_},
      CoordinatorOptions{
          .shape = engine.shape(), .fingerprint = engine.fingerprint(), .kv_transport = workers_.front()->kv->name()});
  coordinator_gate_.spawn(coordinator_->run());
  for (const auto& worker : workers_) workers_gate_.spawn(run_worker(*worker));
  return {};
}

asio::awaitable<void> ActorCluster::run_worker(Worker& worker) {
  Task<void> life = worker.prefill ? worker.prefill->run() : worker.decode->run();  // GCC 12: no ternary in a co_await
  const Result<void> ended = co_await std::move(life);
  if (!ended) log::warn("a worker ended: {}", ended.error().message);
}

Task<void> ActorCluster::ready(Deadline deadline) {
  while (coordinator_->cluster().workers.size() < workers_.size()) {
    if (clock_.now() >= deadline.at)
      co_return fail(ErrorCode::kDeadlineExceeded, "the workers did not register in time");
    co_await clock_.sleep_for(5ms);
  }
  co_return Result<void>{};
}

int64_t ActorCluster::pages_in_use() const {
  int64_t pages = 0;
  for (const auto& worker : workers_) pages += worker->pool->usage().total - worker->pool->usage().idle();
  return pages;
}

asio::awaitable<void> ActorCluster::stop() {
  for (const auto& worker : workers_) {
    if (worker->prefill) worker->prefill->stop();
    if (worker->decode) worker->decode->stop();
  }
  co_await workers_gate_.close();
  if (coordinator_) coordinator_->stop();
  co_await coordinator_gate_.close();
  for (const auto& worker : workers_) co_await worker->kv->shutdown();
}

}  // namespace runahead
