// TcpControlServer, TcpControlClient: the control plane over framed TCP (transport/control/link.h). The coordinator runs the
// server, each worker a client whose one peer is the coordinator. Without an identity (TLS) a host beyond loopback
// is refused unless allow_remote is set.
//   threads  the process's io_context thread; both are destroyed after shutdown() has returned, or with the io_context.
//   limits   kUnregisteredPeersMax connections that nobody has admitted: the oldest goes when another one comes, so idle
//            ones keep nobody out. Members' places are their own; the registry bounds them. Queues: link.h.
#pragma once

#include <map>

#include "transport/control/link.h"

namespace runahead {

class TcpControlServer final : public ControlPlane {
 public:
  struct Options {
    HostPort listen{"127.0.0.1", 0};  // port 0: any free one
    bool allow_remote = false;  // without TLS
    std::shared_ptr<TlsIdentity> identity;  // none: plain
  };
  // Listens when it returns. kAddressInUse, kInvalidArgument.
  static Result<std::unique_ptr<TcpControlServer>> create(asio::any_io_executor executor, Clock& clock,
                                                          Options options);
  ~TcpControlServer() override;

  uint16_t port() const;
  Task<ControlEvent> receive(Deadline deadline) override;
  void send(PeerId peer, std::string payload) override;
  void disconnect(PeerId peer) override;
  void admit(PeerId peer) override;
  // Takes no more peers, disconnects all (what is queued goes out first) and waits for the background work.
  asio::awaitable<void> shutdown();

 private:
  struct State;
  explicit TcpControlServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;  // shared with the accepting coroutines
};

class TcpControlClient final : public ControlPlane {
 public:
  // identity: none, plain.
  TcpControlClient(asio::any_io_executor executor, Clock& clock, HostPort server,
                   std::shared_ptr<TlsIdentity> identity = nullptr);
  ~TcpControlClient() override;

  // One connection at a time: an earlier one is dropped. kUnavailable, kDeadlineExceeded, kIncompatible. On success
  // receive() gives kConnected with a new PeerId, which is returned too. Reconnecting is the caller's decision.
  Task<PeerId> connect(Deadline deadline);
  // This end of the connection: the address by which this machine reaches the server's. Empty before connect().
  const std::string& local_address() const { return local_address_; }
  Task<ControlEvent> receive(Deadline deadline) override;
  void send(PeerId peer, std::string payload) override;
  void disconnect(PeerId peer) override;
  asio::awaitable<void> shutdown();

 private:
  asio::any_io_executor executor_;
  Clock& clock_;
  HostPort server_;
  std::shared_ptr<TlsIdentity> identity_;
  std::string local_address_;
  std::shared_ptr<ControlInbox> inbox_;  // shared with the link, whose coroutines may outlive this object
  std::shared_ptr<Link> link_;
  PeerId last_peer_ = 0;
};

}  // namespace runahead
