// PeerSocket: a TCP connection to another process of the cluster, in TLS where there is an identity, else plain. Asio's composed
// operations take it as they take a socket: one read and one write at a time.
//   owner    the connection's. Closing tcp() ends whatever is under way, a handshake too.
//   threads  the executor's only.
#pragma once

#include <boost/asio/ssl/stream.hpp>
#include <memory>
#include <optional>

#include "base/task.h"
#include "transport/tcp_socket.h"
#include "transport/tls/tls_identity.h"

namespace runahead {

class PeerSocket {
 public:
  using executor_type = Tcp::socket::executor_type;
  enum class End { kConnected, kAccepted };
  enum class Peer { kCoordinator, kWorker };  // whose certificate is believed

  explicit PeerSocket(const asio::any_io_executor& executor) : tcp_(executor) {}
  explicit PeerSocket(Tcp::socket socket) : tcp_(std::move(socket)) {}

  // Before the first byte; without an identity nothing happens. Ends with the socket: its owner watches the time. kUnavailable:
  // what is wrong with the peer, which may come with better files.
  Task<void> secure(std::shared_ptr<TlsIdentity> identity, End end, Peer expected);
  std::optional<TlsRole> certified_role() const { return role_; }  // of the peer; none: plain

  executor_type get_executor() { return tcp().get_executor(); }
  Tcp::socket& tcp() { return tls_ ? tls_->stream.next_layer() : tcp_; }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->stream.async_read_some(buffers, std::forward<Token>(token))
                : tcp_.async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->stream.async_write_some(buffers, std::forward<Token>(token))
                : tcp_.async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  struct Tls {
    TlsIdentity::Context context;  // the stream refers to it
    asio::ssl::stream<Tcp::socket> stream;
  };
  Result<void> check_peer(const TlsIdentity& identity, Peer expected);

  Tcp::socket tcp_;
  std::unique_ptr<Tls> tls_;
  std::optional<TlsRole> role_;
};

}  // namespace runahead
