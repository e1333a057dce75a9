// A control plane within one process: messages in order, connections that a test can cut or make deaf. Both ends on one
// executor.
#pragma once

#include <map>
#include <memory>

#include "tests/actors/mailbox.h"
#include "transport/control/control_plane.h"

namespace runahead::test {

class MemoryControlHub : public std::enable_shared_from_this<MemoryControlHub> {
 public:
  MemoryControlHub(asio::any_io_executor executor, Clock& clock)
      : executor_(executor), clock_(clock), server_(executor, clock, 65536) {}

  std::unique_ptr<ControlPlane> server() { return std::make_unique<Server>(shared_from_this()); }
  Result<std::unique_ptr<ControlPlane>> connect() {
    const PeerId peer = ++last_peer_;
    auto inbox = std::make_shared<Mailbox<ControlEvent>>(executor_, clock_, 65536);
    clients_.emplace(peer, inbox);
    push(*inbox, {ControlEvent::Kind::kConnected, peer, ""});
    push(server_, {ControlEvent::Kind::kConnected, peer, ""});
    return std::make_unique<Client>(shared_from_this(), peer, inbox);
  }
  // The newest connection: workers connect one after the other in tests.
  PeerId last_peer() const { return last_peer_; }
  void cut(PeerId peer, const std::string& why) {
    const auto found = clients_.find(peer);
    if (found == clients_.end()) return;
    push(*found->second, {ControlEvent::Kind::kDisconnected, peer, why});
    push(server_, {ControlEvent::Kind::kDisconnected, peer, why});
    clients_.erase(found);
  }
  bool deaf = false;  // messages are lost without anybody being told

 private:
  static void push(Mailbox<ControlEvent>& inbox, ControlEvent event) { (void)inbox.push(std::move(event)); }

  struct Server final : ControlPlane {
    explicit Server(std::shared_ptr<MemoryControlHub> hub) : hub(std::move(hub)) {}
    Task<ControlEvent> receive(Deadline deadline) override { return hub->server_.pop(deadline); }
    void send(PeerId peer, std::string payload) override {
      const auto found = hub->clients_.find(peer);
      if (found != hub->clients_.end() && !hub->deaf)
        push(*found->second, {ControlEvent::Kind::kMessage, peer, std::move(payload)});
    }
    void disconnect(PeerId peer) override { hub->cut(peer, "the server hung up"); }
    std::shared_ptr<MemoryControlHub> hub;
  };
  struct Client final : ControlPlane {
    Client(std::shared_ptr<MemoryControlHub> hub, PeerId peer, std::shared_ptr<Mailbox<ControlEvent>> inbox)
        : hub(std::move(hub)), peer(peer), inbox(std::move(inbox)) {}
    ~Client() override { hub->cut(peer, "the client is gone"); }
    Task<ControlEvent> receive(Deadline deadline) override { return inbox->pop(deadline); }
    void send(PeerId, std::string payload) override {
      if (hub->clients_.contains(peer) && !hub->deaf)
        push(hub->server_, {ControlEvent::Kind::kMessage, peer, std::move(payload)});
    }
    void disconnect(PeerId) override { hub->cut(peer, "the client hung up"); }
    std::shared_ptr<MemoryControlHub> hub;
    PeerId peer;
    std::shared_ptr<Mailbox<ControlEvent>> inbox;
  };

  asio::any_io_executor executor_;
  Clock& clock_;
  Mailbox<ControlEvent> server_;
  std::map<PeerId, std::shared_ptr<Mailbox<ControlEvent>>> clients_;
  PeerId last_peer_ = 0;
};

}  // namespace runahead::test
