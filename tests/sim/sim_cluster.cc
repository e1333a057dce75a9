#include "sim_cluster.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
constexpr uint64_t kTakeDownStepsMax = 200'000;  // a process that needs more does not stop
constexpr double kSecondsPerToken = 1e-4;  // what workers say they have measured; the planner's only input
constexpr double kSecondsPerPair = 2e-7;

}  // namespace

CoordinatorHost::CoordinatorHost(SimWorld& world, SimNetwork& network, SimDisk& disk, const Scenario& scenario,
                                 const Mutant& mutant)
    : Host(world, 0), control(network, process), store(world, process, disk, scenario.disk) {
  JobStore::Loaded loaded = *store.load();
  const HashEngine engine;
  coordinator = std::make_unique<Coordinator>(
      CoordinatorEnv{
          .executor = process.executor(), .clock = clock, .rng = rng, .control = control, .metrics = metrics},
      CoordinatorOptions{.epoch = loaded.epoch,
                         .shape = engine.shape(),
                         .fingerprint = engine.fingerprint(),
                         .kv_transport = "sim",
                         .faults = mutant.actors});
  jobs = std::make_unique<JobService>(JobServiceEnv{.executor = process.executor(),
                                                    .clock = clock,
                                                    .rng = rng,
                                                    .inference = *coordinator,
                                                    .store = store,
                                                    .unix_time_ms = [&world] { return world.now() / 1ms; }},
                                      mutant.actors);
  process.spawn(coordinator->run());
  jobs->resume(std::move(loaded.unfinished));
}

void CoordinatorHost::stop() {
  stopping = true;
  process.spawn(stop_in_order());
}

asio::awaitable<void> CoordinatorHost::stop_in_order() {
  co_await jobs->stop();
  coordinator->stop();
}

template <class Worker>
WorkerHost<Worker>::WorkerHost(SimWorld& world, SimNetwork& network, SimKvHub& hub, NodeId node,
                               const Scenario& scenario, const Mutant& mutant)
    : Host(world, node),
      pool(engine.page_bytes(), scenario.pool_pages),
      kv(hub, process),
      lane(process, world.rng, scenario.lane) {
  static_cast<void>(kv.register_memory(pool.memory()));
  worker =
      std::make_unique<Worker>(WorkerEnv{.executor = process.executor(),
                                         .clock = clock,
                                         .rng = rng,
                                         .kv = kv,
                                         .lane = lane,
                                         .engine = engine,
                                         .pool = pool,
                                         .metrics = metrics,
                                         .grammars = grammars,
                                         .connect =
                                             [&world, &network, this](Deadline deadline) {
                                               return SimControlClient::connect(world, network, process, 0, deadline);
                                             }},
                               WorkerOptions{.name = "node-" + std::to_string(node),
                                             .device = "simulated",
                                             .seconds_per_token = kSecondsPerToken,
                                             .seconds_per_pair = kSecondsPerPair,
                                             .faults = mutant.actors});
  // The result says why it ended; what it left behind is checked when the host is taken down.
  process.spawn([](Task<void> run) -> asio::awaitable<void> { auto ended = co_await std::move(run); }(worker->run()));
}

SimCluster::SimCluster(const Scenario& s, const Mutant& m)
    : scenario(s), mutant(m), world(s.seed), network(world, scenario.network), hub(world, network, scenario.kv) {
  hub.ignore_checksum = mutant.ignore_checksum;
  hosts_.resize(static_cast<size_t>(1 + scenario.prefill_workers + scenario.decode_workers));
  for (NodeId node = 0; node < nodes(); ++node) start(node);
}

SimCluster::~SimCluster() { take_down(); }

void SimCluster::take_down() {
  for (NodeId node = 0; node < nodes(); ++node)
    if (up(node)) kill(node);
}

CoordinatorHost* SimCluster::coordinator() { return static_cast<CoordinatorHost*>(hosts_[0].get()); }

void SimCluster::start(NodeId node) {
  auto& host = hosts_[static_cast<size_t>(node)];
  if (node == 0) host = std::make_unique<CoordinatorHost>(world, network, disk, scenario, mutant);
  else if (is_prefill(node))
    host = std::make_unique<WorkerHost<PrefillWorker>>(world, network, hub, node, scenario, mutant);
  else host = std::make_unique<WorkerHost<DecodeWorker>>(world, network, hub, node, scenario, mutant);
}

void SimCluster::kill(NodeId node) {
  std::unique_ptr<Host> host = std::move(hosts_[static_cast<size_t>(node)]);
  Process& process = host->process;
  world.resume(process);
  if (node == 0) network.listen(0, nullptr);
  world.isolate(process);
  network.drop_process(process);
  hub.drop_process(process);
  host->stop();
  const bool stopped = world.run_isolated(process, [&] { return host->stopped(); }, kTakeDownStepsMax);
  const auto pages = host->pages();
  if (!stopped) failure_ = "STOP_HANGS node " + std::to_string(node);
  if (stopped && pages && pages->idle() != pages->total)
    failure_ = "PAGE_LEAK at the stop of node " + std::to_string(node);
  if (!failure_.empty()) {  // destructors would only confirm it
    world.bury(process);
    static auto& graveyard = *new std::vector<std::unique_ptr<Host>>;  // reachable: no leak to the sanitizer
    graveyard.push_back(std::move(host));
    return;
  }
  host.reset();
  world.end(process);
}

}  // namespace runahead::test
