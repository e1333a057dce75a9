// What every TCP connection of ours has in common: addresses, listening, connecting with a deadline, socket options,
// and Asio's error codes as our Errors. No TLS yet, so listening beyond loopback must be asked for (reliability.md 2,
// row 18).
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>
#include <string_view>

#include "transport/async.h"

namespace runahead {

using Tcp = asio::ip::tcp;

struct HostPort {
  std::string host;  // name or literal, without brackets
  uint16_t port = 0;
};

// "host:port" or "[v6]:port"; kInvalidArgument.
Result<HostPort> parse_host_port(std::string_view text);
std::string to_string(const HostPort& address);

// Where to listen; kInvalidArgument for an unknown host, or one that is not loopback without allow_remote.
Result<Tcp::endpoint> listen_endpoint(asio::any_io_executor executor, const HostPort& address, bool allow_remote);
Error address_in_use(const HostPort& address);

// Port 0 takes a free one. kAddressInUse; else as listen_endpoint.
Result<Tcp::acceptor> listen_tcp(asio::any_io_executor executor, const HostPort& address, bool allow_remote);

// The addresses of a name or literal; kUnavailable, kDeadlineExceeded.
Task<Tcp::endpoint> resolve_host(HostPort address, const Clock& clock, Deadline deadline);

// kUnavailable when nobody listens, kDeadlineExceeded; on success the options are set.
Task<Tcp::socket> connect_tcp(HostPort address, const Clock& clock, Deadline deadline);

// No delay, keep-alive, and TCP_USER_TIMEOUT: a peer whose host is gone is noticed within limits::kTcpUserTimeout.
void set_socket_options(Tcp::socket& socket);

// Shuts the sending side down (what is written still goes out), then closes. Never fails.
void close_socket(Tcp::socket& socket);

// kWorkerLost: "lost the connection to <who>: <why>".
Error connection_lost(std::string_view who, const boost::system::error_code& why);

}  // namespace runahead
