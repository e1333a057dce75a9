#include "transport/control/memory_control.h"

#include <map>

#include "transport/control/link.h"

namespace runahead {

struct MemoryControlHub::State {
  State(asio::any_io_executor executor_in, Clock& clock_in)
      : executor(std::move(executor_in)), clock(clock_in), server(std::make_shared<ControlInbox>(executor, clock)) {}

  asio::any_io_executor executor;
  Clock& clock;
  std::shared_ptr<ControlInbox> server;
  std::map<PeerId, std::shared_ptr<ControlInbox>> clients;  // shared with the client, which may outlive its entry
  PeerId last_peer = 0;
  bool loses_messages = false;

  void disconnect(PeerId peer, const std::string& why) {
    const auto it = clients.find(peer);
    if (it == clients.end()) return;
    it->second->push({ControlEvent::Kind::kDisconnected, peer, why});
    server->push({ControlEvent::Kind::kDisconnected, peer, why});
    clients.erase(it);
  }
};

class MemoryControlHub::Server final : public ControlPlane {
 public:
  explicit Server(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Task<ControlEvent> receive(Deadline deadline) override { return state_->server->receive(deadline); }
  void send(PeerId peer, std::string payload) override {
    const auto it = state_->clients.find(peer);
    if (it == state_->clients.end() || state_->loses_messages) return;
    if (it->second->full()) return state_->disconnect(peer, "it does not read its messages");
    it->second->push({ControlEvent::Kind::kMessage, peer, std::move(payload)});
  }
  void disconnect(PeerId peer) override { state_->disconnect(peer, "disconnected"); }

 private:
  std::shared_ptr<State> state_;
};

class MemoryControlHub::Client final : public ControlPlane {
 public:
  Client(std::shared_ptr<State> state, PeerId peer, std::shared_ptr<ControlInbox> inbox)
      : state_(std::move(state)), peer_(peer), inbox_(std::move(inbox)) {}
  ~Client() override { state_->disconnect(peer_, "the worker went away"); }

  Task<ControlEvent> receive(Deadline deadline) override { return inbox_->receive(deadline); }
  void send(PeerId peer, std::string payload) override {
    if (peer != peer_ || !state_->clients.contains(peer) || state_->loses_messages) return;
    if (state_->server->full()) return state_->disconnect(peer, "the coordinator does not read its messages");
    state_->server->push({ControlEvent::Kind::kMessage, peer, std::move(payload)});
  }
  void disconnect(PeerId peer) override {
    if (peer == peer_) state_->disconnect(peer, "disconnected");
  }

 private:
  std::shared_ptr<State> state_;
  PeerId peer_;
  std::shared_ptr<ControlInbox> inbox_;
};

MemoryControlHub::MemoryControlHub(asio::any_io_executor executor, Clock& clock)
    : state_(std::make_shared<State>(std::move(executor), clock)), server_(std::make_unique<Server>(state_)) {}
MemoryControlHub::~MemoryControlHub() = default;

ControlPlane& MemoryControlHub::server() { return *server_; }

std::unique_ptr<ControlPlane> MemoryControlHub::connect() {
  const PeerId peer = ++state_->last_peer;
  auto inbox = std::make_shared<ControlInbox>(state_->executor, state_->clock);
  state_->clients[peer] = inbox;
  inbox->push({ControlEvent::Kind::kConnected, peer, {}});
  state_->server->push({ControlEvent::Kind::kConnected, peer, {}});
  return std::make_unique<Client>(state_, peer, std::move(inbox));
}

PeerId MemoryControlHub::last_peer() const { return state_->last_peer; }
void MemoryControlHub::cut(PeerId peer, const std::string& why) { state_->disconnect(peer, why); }
void MemoryControlHub::lose_messages(bool on) { state_->loses_messages = on; }

}  // namespace runahead
