#include "sim_network.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
constexpr Duration kUnnoticedMax = 20s;  // keep-alive finds a dead connection at last
constexpr int kToClient = 0, kToServer = 1;

}  // namespace

void ControlEndpoint::push(ControlEvent event) {
  events_.push_back(std::move(event));
  arrived_.notify();
}

Task<ControlEvent> ControlEndpoint::receive(Deadline deadline) {
  while (events_.empty()) {
    if (process_.now() >= deadline.at) co_return fail(ErrorCode::kDeadlineExceeded, "no message in time");
    co_await arrived_.wait_until(deadline);
  }
  ControlEvent event = std::move(events_.front());
  events_.pop_front();
  co_return event;
}

void SimNetwork::listen(NodeId node, std::shared_ptr<ControlEndpoint> server) {
  if (server) servers_[node] = std::move(server);
  else servers_.erase(node);
}

Result<PeerId> SimNetwork::connect(std::shared_ptr<ControlEndpoint> client, NodeId server) {
  const auto found = servers_.find(server);
  if (found == servers_.end()) return fail(ErrorCode::kUnavailable, "connection refused");
  auto connection = std::make_shared<Connection>();
  connection->id = ++last_peer_;
  connection->ends[0] = client;
  connection->ends[1] = found->second;
  const NodeId client_node = client->process().node();
  connection->directions[kToClient] = {.to = client, .from_node = server, .to_node = client_node};
  connection->directions[kToServer] = {.to = found->second, .from_node = client_node, .to_node = server};
  connections_[connection->id] = connection;
  transmit(connection, kToServer, {.kind = ControlEvent::Kind::kConnected, .peer = connection->id});
  client->push({.kind = ControlEvent::Kind::kConnected, .peer = connection->id});
  return connection->id;
}

void SimNetwork::send(const ControlEndpoint& from, PeerId peer, std::string payload) {
  const auto found = connections_.find(peer);
  if (found == connections_.end() || found->second->broken) return;
  const auto connection = found->second;
  RUNAHEAD_CHECK(payload.size() <= limits::kControlFrameBytesMax, "a control message is too large");
  const int direction = connection->ends[0].get() == &from ? kToServer : kToClient;
  transmit(connection, direction, {.kind = ControlEvent::Kind::kMessage, .peer = peer, .payload = std::move(payload)});
  if (world_.rng.chance(weather_.break_probability)) break_connection(connection, "connection reset");
}

void SimNetwork::disconnect(const ControlEndpoint& from, PeerId peer) {
  const auto found = connections_.find(peer);
  if (found == connections_.end() || found->second->broken) return;
  const auto connection = found->second;
  // Orderly: what was sent before arrives, then the end. This end hears nothing more from the other one.
  connection->broken = true;
  connections_.erase(found);
  const int away = connection->ends[0].get() == &from ? kToServer : kToClient;
  tell_end(connection, away, "the peer has disconnected");
  tell_end(connection, 1 - away, "disconnected");
  connection->directions[1 - away].held.clear();
}

void SimNetwork::drop_process(const Process& process) {
  std::vector<std::shared_ptr<Connection>> mine;
  for (auto& [id, connection] : connections_)
    if (&connection->ends[0]->process() == &process || &connection->ends[1]->process() == &process)
      mine.push_back(connection);
  for (auto& connection : mine) break_connection(connection, "connection reset");
}

void SimNetwork::transmit(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event) {
  Direction& way = connection->directions[direction];
  way.last_delivery = std::max(way.last_delivery, world_.now() + world_.rng.exponential(weather_.latency_mean));
  world_.at(way.last_delivery, [this, connection, direction, event = std::move(event)]() mutable {
    deliver(connection, direction, std::move(event));
  });
}

void SimNetwork::deliver(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event) {
  Direction& way = connection->directions[direction];
  const bool is_end = event.kind == ControlEvent::Kind::kDisconnected;
  if (connection->broken && connection->lose_in_flight && !is_end) return;
  if (!is_end && (is_cut(way.from_node, way.to_node) || !way.held.empty()))
    return hold(connection, direction, std::move(event));
  if (way.to->process().state() == Process::State::kEnded) return;
  way.to->push(std::move(event));
}

void SimNetwork::hold(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event) {
  Direction& way = connection->directions[direction];
  if (connection->broken) return;
  way.held.push_back(std::move(event));
  if (way.held.size() > 1) return;
  const uint64_t episode = ++way.held_episode;
  world_.at(world_.now() + kUserTimeout, [this, connection, direction, episode] {
    const Direction& held = connection->directions[direction];
    if (!held.held.empty() && held.held_episode == episode && !connection->broken)
      break_connection(connection, "connection timed out");
  });
}

void SimNetwork::heal(NodeId from, NodeId to) {
  cut_.erase({from, to});
  for (auto& [id, connection] : connections_) {
    for (int direction : {kToClient, kToServer}) {
      Direction& way = connection->directions[direction];
      if (way.from_node != from || way.to_node != to) continue;
      std::deque<ControlEvent> held = std::move(way.held);
      way.held.clear();
      for (ControlEvent& event : held)  // at once: what was sent later must not pass it
        if (way.to->process().state() != Process::State::kEnded) way.to->push(std::move(event));
    }
  }
}

void SimNetwork::heal_all() {
  while (!cut_.empty()) {
    const auto [from, to] = *cut_.begin();
    heal(from, to);
  }
}

void SimNetwork::break_connection(const std::shared_ptr<Connection>& connection, const char* why) {
  if (connection->broken) return;
  connection->broken = true;
  connection->lose_in_flight = world_.rng.chance(0.5);
  connections_.erase(connection->id);
  for (int direction : {kToClient, kToServer}) tell_end(connection, direction, why);
}

void SimNetwork::tell_end(const std::shared_ptr<Connection>& connection, int direction, const char* why) {
  Direction& way = connection->directions[direction];
  if (way.to->process().state() == Process::State::kEnded) return;
  ControlEvent event{.kind = ControlEvent::Kind::kDisconnected, .peer = connection->id, .payload = why};
  if (!way.to->process().reachable()) return way.to->push(std::move(event));  // it is being taken down: at once
  const bool unnoticed = world_.rng.chance(weather_.unnoticed_probability);
  Time when = world_.now() + world_.rng.exponential(weather_.latency_mean);
  if (unnoticed) when += world_.rng.duration(Duration(0), kUnnoticedMax);
  way.last_delivery = std::max(way.last_delivery, when);
  world_.at(way.last_delivery, [this, connection, direction, event = std::move(event)]() mutable {
    deliver(connection, direction, std::move(event));
  });
}

SimControlServer::SimControlServer(SimNetwork& network, Process& process)
    : network_(network), node_(process.node()), endpoint_(std::make_shared<ControlEndpoint>(process)) {
  network_.listen(node_, endpoint_);
}

SimControlServer::~SimControlServer() { network_.listen(node_, nullptr); }

Task<std::unique_ptr<ControlPlane>> SimControlClient::connect(SimWorld& world, SimNetwork& network, Process& process,
                                                              NodeId server, Deadline deadline) {
  SimClock clock(process);
  const NodeId node = process.node();
  co_await clock.sleep_for(world.rng.duration(100us, 2ms));
  while (network.is_cut(node, server) || network.is_cut(server, node)) {
    if (clock.now() >= deadline.at) co_return fail(ErrorCode::kDeadlineExceeded, "no answer");
    co_await clock.sleep_until(std::min(deadline.at, clock.now() + 50ms));  // a SYN again
  }
  if (!process.reachable()) co_return fail(ErrorCode::kUnavailable, "the process is gone");
  auto endpoint = std::make_shared<ControlEndpoint>(process);
  auto peer = network.connect(endpoint, server);
  CO_TRY(peer);
  co_return std::make_unique<SimControlClient>(network, std::move(endpoint), *peer);
}

}  // namespace runahead::test
