// SimNetwork: the control plane's connections on virtual time. It behaves like TCP: a connection keeps its messages in
// order and whole until it breaks; a cut link holds them back and lets them through when it heals, late; a connection
// that is held back for kUserTimeout breaks; a broken one may be noticed by one end much later than by the other.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/async/wake.h"
#include "sim_clock.h"
#include "sim_world.h"
#include "transport/control/control_plane.h"

namespace runahead::test {

constexpr Duration kUserTimeout = std::chrono::seconds(10);  // TCP_USER_TIMEOUT of transport/control/link.h

struct NetworkWeather {
  Duration latency_mean = std::chrono::milliseconds(1);
  double break_probability = 0;      // of a connection, a message
  double unnoticed_probability = 0;  // of a break or a crash, an end: it hears of it only after up to 20 s
};

// One end of the control plane in one process.
class ControlEndpoint {
 public:
  explicit ControlEndpoint(Process& process)
      : process_(process), clock_(process), arrived_(process.executor(), clock_) {}
  Process& process() { return process_; }
  void push(ControlEvent event);
  Task<ControlEvent> receive(Deadline deadline);

 private:
  Process& process_;
  std::deque<ControlEvent> events_;
  SimClock clock_;
  Wake arrived_;
};

class SimNetwork {
 public:
  SimNetwork(SimWorld& world, NetworkWeather& weather) : world_(world), weather_(weather) {}

  // The server of `node` from now on; null: it is gone.
  void listen(NodeId node, std::shared_ptr<ControlEndpoint> server);
  Result<PeerId> connect(std::shared_ptr<ControlEndpoint> client, NodeId server);
  void send(const ControlEndpoint& from, PeerId peer, std::string payload);
  void disconnect(const ControlEndpoint& from, PeerId peer);
  // All connections of a process that was killed.
  void drop_process(const Process& process);

  bool is_cut(NodeId from, NodeId to) const { return cut_.contains({from, to}); }
  void cut(NodeId from, NodeId to) { cut_.insert({from, to}); }
  void heal(NodeId from, NodeId to);
  void heal_all();

 private:
  struct Direction {
    std::shared_ptr<ControlEndpoint> to;
    NodeId from_node = 0, to_node = 0;
    Time last_delivery{0};  // of the world
    std::deque<ControlEvent> held;
    uint64_t held_episode = 0;
  };
  struct Connection {
    PeerId id = 0;                             // both ends call each other by the same number
    std::shared_ptr<ControlEndpoint> ends[2];  // client, server
    Direction directions[2];                   // to the client, to the server
    bool broken = false;
    bool lose_in_flight = false;
  };
  void transmit(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event);
  void deliver(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event);
  void hold(const std::shared_ptr<Connection>& connection, int direction, ControlEvent event);
  void break_connection(const std::shared_ptr<Connection>& connection, const char* why);
  void tell_end(const std::shared_ptr<Connection>& connection, int direction, const char* why);

  SimWorld& world_;
  NetworkWeather& weather_;
  std::map<NodeId, std::shared_ptr<ControlEndpoint>> servers_;
  std::map<PeerId, std::shared_ptr<Connection>> connections_;
  std::set<std::pair<NodeId, NodeId>> cut_;  // from, to
  PeerId last_peer_ = 0;
};

// What the actors get: the server side, and a client's side with its one connection.
class SimControlServer final : public ControlPlane {
 public:
  SimControlServer(SimNetwork& network, Process& process);
  ~SimControlServer() override;
  Task<ControlEvent> receive(Deadline deadline) override { return endpoint_->receive(deadline); }
  void send(PeerId peer, std::string payload) override { network_.send(*endpoint_, peer, std::move(payload)); }
  void disconnect(PeerId peer) override { network_.disconnect(*endpoint_, peer); }

 private:
  SimNetwork& network_;
  NodeId node_;
  std::shared_ptr<ControlEndpoint> endpoint_;  // messages under way share it
};

class SimControlClient final : public ControlPlane {
 public:
  SimControlClient(SimNetwork& network, std::shared_ptr<ControlEndpoint> endpoint, PeerId peer)
      : network_(network), endpoint_(std::move(endpoint)), peer_(peer) {}
  ~SimControlClient() override { network_.disconnect(*endpoint_, peer_); }
  // kUnavailable if nobody listens, kDeadlineExceeded if the link is cut.
  static Task<std::unique_ptr<ControlPlane>> connect(SimWorld& world, SimNetwork& network, Process& process,
                                                     NodeId server, Deadline deadline);
  Task<ControlEvent> receive(Deadline deadline) override { return endpoint_->receive(deadline); }
  void send(PeerId peer, std::string payload) override { network_.send(*endpoint_, peer, std::move(payload)); }
  void disconnect(PeerId peer) override { network_.disconnect(*endpoint_, peer); }

 private:
  SimNetwork& network_;
  std::shared_ptr<ControlEndpoint> endpoint_;
  PeerId peer_;
};

}  // namespace runahead::test
