#include "seed_run.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/spdlog.h>

#include <cstdio>

#include "base/log.h"
#include "clients.h"
#include "hash_engine.h"
#include "nemesis.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
constexpr Duration kTick = 5ms;         // how often clients look for something to send
constexpr Duration kSettle = 4s;        // leases run out (2 s), workers register again, before success is demanded
constexpr Duration kLivenessMax = 150s;  // four lanes in a row that are stuck for limits::kStallTimeout, with room
constexpr Duration kRest =
    60s;  // what may hold a page: 10 s of a dead connection, 5 s of a transfer, 40 s of a stuck lane
constexpr int32_t kCanaries = 3;

// The world's time in a log line.
class VirtualTime final : public spdlog::custom_flag_formatter {
 public:
  explicit VirtualTime(const SimWorld& world) : world_(world) {}
  void format(const spdlog::details::log_msg&, const std::tm&, spdlog::memory_buf_t& out) override {
    char text[32];
    const int length = std::snprintf(text, sizeof text, "%10.6f", seconds(world_.now()));
    out.append(text, text + length);
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<VirtualTime>(world_); }

 private:
  const SimWorld& world_;
};

class SeedRun {
 public:
  SeedRun(uint64_t seed, const Mutant& mutant)
      : cluster_(draw_scenario(seed), mutant), clients_(cluster_), nemesis_(cluster_) {}

  const SimWorld& world() const { return cluster_.world; }

  SeedResult run() {
    tick();
    nemesis_.start();
    std::string failure = phases();
    cluster_.take_down();  // while the clients are still there: their coroutines end in it
    if (failure.empty()) failure = cluster_.failure();
    return summary(std::move(failure));
  }

 private:
  std::string phases() {
    if (!run_until(cluster_.scenario.safety, false)) return trouble();
    log::debug("everything heals");
    nemesis_.heal();
    ask_for_success();
    if (!run_until(cluster_.world.now() + kLivenessMax, true)) return trouble();
    if (!clients_.all_over()) return unfinished();
    if (!run_until(cluster_.world.now() + kRest, false)) return trouble();
    return at_rest();
  }

  // False as soon as something is wrong.
  bool run_until(Time end, bool stop_when_over) {
    while (cluster_.world.now() < end) {
      cluster_.world.step(end);
      if (!trouble().empty()) return false;
      if (stop_when_over && clients_.all_over()) return true;
    }
    return true;
  }

  const std::string& trouble() const { return cluster_.failure().empty() ? clients_.violation() : cluster_.failure(); }

  void tick() {
    clients_.tick();
    cluster_.world.at(cluster_.world.now() + kTick, [this] { tick(); });
  }

  // New requests after the heal: they must succeed, whatever happened before.
  void ask_for_success() {
    Scenario more = draw_scenario(cluster_.scenario.seed ^ 0xCA9A51E5);
    for (int32_t i = 0; i < kCanaries && i < static_cast<int32_t>(more.requests.size()); ++i) {
      RequestSpec spec = more.requests[static_cast<size_t>(i)];
      spec.number += 1000;
      spec.request.external_id = "canary-" + std::to_string(i);
      spec.must_succeed = true;
      spec.cancel_after.reset();
      spec.request.deadline = 0s;
      spec.submit_at = cluster_.world.now() + kSettle;
      clients_.add(std::move(spec));
    }
  }

  std::string unfinished() const {
    for (size_t i = 0; i < clients_.size(); ++i)
      if (const RequestHistory& history = clients_.histories()[i]; !history.over() || history.busy)
        return "NOT_FINISHED " + clients_.spec(i).request.external_id + " sent " + std::to_string(history.sent) +
               " times, has " + std::to_string(history.tokens.size()) + " tokens, last error: " + history.error.message;
    return "";
  }

  std::string at_rest() {
    for (NodeId node = 1; node < cluster_.nodes(); ++node) {
      const KvPool::Usage pages = *cluster_.host(node).pages();
      if (pages.idle() != pages.total)
        return "PAGE_LEAK node " + std::to_string(node) + ": " + std::to_string(pages.leased) + " leased, " +
               std::to_string(pages.quarantined) + " quarantined at rest";
    }
    const ClusterView view = cluster_.coordinator()->coordinator->cluster();
    if (view.running != 0 || view.waiting != 0) return "NOT_AT_REST: the coordinator still counts requests";
    if (static_cast<NodeId>(view.workers.size()) != cluster_.nodes() - 1)
      return "NOT_AT_REST: a worker has not come back";
    for (const WorkerView& worker : view.workers)
      if (worker.pages_free != worker.pages_total || worker.running != 0)
        return "NOT_AT_REST: the coordinator's account of " + worker.name + " is not empty";
    for (const auto& [id, row] : cluster_.disk.rows)
      for (const auto& [other_id, other] : cluster_.disk.rows)
        if (id != other_id && row.head.idempotency_key == other.head.idempotency_key)
          return "DOUBLED_JOB: two rows of one key";
    return "";
  }

  SeedResult summary(std::string failure) {
    SeedResult result{.failure = std::move(failure),
                      .trace = cluster_.world.trace(),
                      .steps = cluster_.world.steps(),
                      .virtual_seconds = seconds(cluster_.world.now()),
                      .requests = static_cast<int32_t>(clients_.size()),
                      .kills = nemesis_.kills,
                      .pauses = nemesis_.pauses,
                      .cuts = nemesis_.cuts,
                      .sticks = nemesis_.sticks,
                      .corrupted_pages = cluster_.hub.corrupted_pages()};
    for (const RequestHistory& history : clients_.histories()) {
      using State = RequestHistory::State;
      result.finished += history.state == State::kFinished;
      result.failed += history.state == State::kFailed;
      result.cancelled += history.state == State::kCancelled;
      result.broken += history.state == State::kBroken;
      result.retried += history.state == State::kFinished && history.attempts > 1;
    }
    return result;
  }

  SimCluster cluster_;
  Clients clients_;
  Nemesis nemesis_;
};

}  // namespace

SeedResult run_seed(uint64_t seed, const Mutant& mutant, bool verbose) {
  const HashWindow window(seed % 3 == 0 ? 100 : 0);  // tokens, a page and a half
  SeedRun run(seed, mutant);
  if (verbose) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<VirtualTime>('*', run.world()).set_pattern("%* %v");
    spdlog::set_formatter(std::move(formatter));
    log::set_level(log::Level::kDebug);
  }
  SeedResult result = run.run();
  if (verbose) spdlog::set_pattern("%v");  // the world goes
  return result;
}

std::string replay_command(uint64_t seed, std::string_view mutant) {
  return "build/release/tests/sim/sim_run --seed " + std::to_string(seed) + " --mutant " + std::string(mutant) + " -v";
}

}  // namespace runahead::test
