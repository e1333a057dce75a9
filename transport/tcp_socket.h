// What every TCP connection of ours has in common: listening, connecting with a deadline, socket options, and Asio's
// error codes as our Errors. A name may have several addresses: we listen on all of them, and try all of them. TLS is above
// (transport/tls); without it listening beyond loopback must be asked for.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "transport/host_port.h"

namespace runahead {

using Tcp = asio::ip::tcp;

// Where to listen: every address of the host; for "*" the one that takes all of both families. kInvalidArgument for an
// unknown host, or one that is not loopback without allow_remote: then `remote_needs` says what to do.
inline constexpr std::string_view kRemoteNeedsTls =
    "an address beyond loopback needs --tls-cert, --tls-key and --tls-ca (`runahead certs` makes the files), or "
    "--insecure-network where everybody on the network is trusted";
Result<std::vector<Tcp::endpoint>> listen_endpoints(asio::any_io_executor executor, const HostPort& address,
                                                    bool allow_remote, std::string_view remote_needs = kRemoteNeedsTls);
Error address_in_use(const HostPort& address);

// The sockets of one listen address: one for each address of the host, on the same port.
struct TcpListener {
  std::vector<Tcp::acceptor> acceptors;  // each has its own accepting coroutine
  uint16_t port() const;
  bool on_loopback() const;  // all of them
  void close();
};

// Port 0 takes a free one. kAddressInUse; else as listen_endpoints.
Result<TcpListener> listen_tcp(asio::any_io_executor executor, const HostPort& address, bool allow_remote,
                               std::string_view remote_needs = kRemoteNeedsTls);
// An address that this machine does not have is left out, unless it is the only one.
Result<TcpListener> listen_on(asio::any_io_executor executor, std::vector<Tcp::endpoint> endpoints);

// Between a failed accept, most likely for want of descriptors, and the next.
inline constexpr auto kAcceptPause = std::chrono::milliseconds(100);

// The addresses of a name or literal, at most limits::kAddressesMax; of a wildcard those of loopback. kUnavailable,
// kDeadlineExceeded.
Task<std::vector<Tcp::endpoint>> resolve_host(HostPort address, const Clock& clock, Deadline deadline);

// To the first address that answers. kUnavailable when nobody listens, kDeadlineExceeded; on success the options are set.
Task<Tcp::socket> connect_tcp(HostPort address, const Clock& clock, Deadline deadline);
Task<Tcp::socket> connect_any(std::vector<Tcp::endpoint> endpoints, const Clock& clock, Deadline deadline);

// No delay, keep-alive, and TCP_USER_TIMEOUT: a peer whose host is gone is noticed within limits::kTcpUserTimeout.
void set_socket_options(Tcp::socket& socket);

// Shuts the sending side down (what is written still goes out), then closes. Never fails.
void close_socket(Tcp::socket& socket);

// kWorkerLost: "lost the connection to <who>: <why>".
Error connection_lost(std::string_view who, const boost::system::error_code& why);

// "127.0.0.1:7070", "[::1]:7070"; IPv4 in IPv6's clothes as IPv4.
std::string to_string(const Tcp::endpoint& endpoint);

}  // namespace runahead
