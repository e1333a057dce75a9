#include "transport/tcp_info.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace runahead {

namespace {

// None if the kernel does not fill in its first `bytes`.
std::optional<tcp_info> info_of(int socket, size_t bytes) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < bytes) return std::nullopt;
  return info;
}

}  // namespace

std::optional<Duration> tcp_busy_time(int socket) {
  const auto info = info_of(socket, offsetof(tcp_info, tcpi_busy_time) + sizeof(tcp_info::tcpi_busy_time));
  if (!info) return std::nullopt;
  const Duration busy = std::chrono::microseconds(info->tcpi_busy_time);
  return busy < kBusyTimeMin ? std::nullopt : std::optional(busy);
}

Duration tcp_round_trip(int socket) {
  const auto info = info_of(socket, offsetof(tcp_info, tcpi_min_rtt) + sizeof(tcp_info::tcpi_min_rtt));
  const bool seen = info && info->tcpi_min_rtt != UINT32_MAX;  // the kernel's word for none
  return seen ? std::chrono::microseconds(info->tcpi_min_rtt) : Duration{0};
}

}  // namespace runahead
