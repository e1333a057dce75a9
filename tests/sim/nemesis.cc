#include "nemesis.h"

#include "base/log.h"

namespace runahead::test {

void Nemesis::start() {
  SimWorld& world = cluster_.world;
  world.at(world.now() + world.rng.exponential(cluster_.scenario.nemesis.interval_mean), [this] {
    if (healed_) return;
    strike();
    start();
  });
}

void Nemesis::strike() {
  const NemesisPlan& plan = cluster_.scenario.nemesis;
  const int32_t weights[] = {plan.kill_prefill, plan.kill_decode,   plan.kill_coordinator, plan.pause,
                             plan.cut_one_way,  plan.cut_both_ways, plan.stick_lane};
  int32_t sum = 0;
  for (int32_t weight : weights) sum += weight;
  if (sum == 0) return;
  auto draw = static_cast<int32_t>(cluster_.world.rng.below(static_cast<uint64_t>(sum)));
  size_t what = 0;
  while (draw >= weights[what]) draw -= weights[what++];
  switch (what) {
    case 0:
      return kill(any_node(true));
    case 1:
      return kill(any_node(false));
    case 2:
      return kill(0);
    case 3:
      return pause(static_cast<NodeId>(cluster_.world.rng.below(static_cast<uint64_t>(cluster_.nodes()))));
    case 6:
      return stick(any_node(cluster_.world.rng.chance(0.5)));
    default:
      return cut(what == 5);
  }
}

NodeId Nemesis::any_node(bool prefill) {
  const auto first = prefill ? 1 : 1 + cluster_.scenario.prefill_workers;
  const auto count = prefill ? cluster_.scenario.prefill_workers : cluster_.scenario.decode_workers;
  return first + static_cast<NodeId>(cluster_.world.rng.below(static_cast<uint64_t>(count)));
}

void Nemesis::kill(NodeId node) {
  if (!cluster_.up(node)) return;
  ++kills;
  SimWorld& world = cluster_.world;
  const Duration down = world.rng.duration(std::chrono::milliseconds(5), cluster_.scenario.nemesis.down_max);
  log::debug("nemesis: kill node {} for {:.3f} s", node, seconds(down));
  cluster_.kill(node);
  world.at(world.now() + down, [this, node] {
    if (!cluster_.up(node)) cluster_.start(node);
  });
}

void Nemesis::pause(NodeId node) {
  if (!cluster_.up(node) || cluster_.host(node).process.state() != Process::State::kRunning) return;
  ++pauses;
  SimWorld& world = cluster_.world;
  Host& host = cluster_.host(node);
  host.was_paused = true;
  world.pause(host.process);
  const Duration length = world.rng.duration(std::chrono::milliseconds(1), cluster_.scenario.nemesis.pause_max);
  log::debug("nemesis: pause node {} for {:.3f} s", node, seconds(length));
  world.at(world.now() + length, [&world, &process = host.process] { world.resume(process); });
}

void Nemesis::stick(NodeId node) {
  if (!cluster_.up(node)) return;
  ++sticks;
  const Duration length = cluster_.world.rng.duration(std::chrono::seconds(1), cluster_.scenario.nemesis.stick_max);
  log::debug("nemesis: the lane of node {} is stuck for {:.3f} s", node, seconds(length));
  cluster_.host(node).stick_lane(length);
}

void Nemesis::cut(bool both_ways) {
  ++cuts;
  SimWorld& world = cluster_.world;
  const auto nodes = static_cast<uint64_t>(cluster_.nodes());
  const auto a = static_cast<NodeId>(world.rng.below(nodes)), b = static_cast<NodeId>(world.rng.below(nodes));
  if (a == b) return;
  cluster_.network.cut(a, b);
  if (both_ways) cluster_.network.cut(b, a);
  const Duration length = world.rng.duration(std::chrono::milliseconds(1), cluster_.scenario.nemesis.cut_max);
  log::debug("nemesis: cut {} -> {}{} for {:.3f} s", a, b, both_ways ? " and back" : "", seconds(length));
  world.at(world.now() + length, [this, a, b, both_ways] {
    cluster_.network.heal(a, b);
    if (both_ways) cluster_.network.heal(b, a);
  });
}

void Nemesis::heal() {
  healed_ = true;
  calm(cluster_.scenario);
  cluster_.network.heal_all();
  for (NodeId node = 0; node < cluster_.nodes(); ++node) {
    if (!cluster_.up(node)) cluster_.start(node);
    cluster_.world.resume(cluster_.host(node).process);
  }
}

}  // namespace runahead::test
