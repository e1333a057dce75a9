#include "transport/tcp_info.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace runahead {

std::optional<Duration> tcp_busy_time(int socket) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return std::nullopt;
  if (size < offsetof(tcp_info, tcpi_busy_time) + sizeof(info.tcpi_busy_time)) return std::nullopt;
  const Duration busy = std::chrono::microseconds(info.tcpi_busy_time);
  return busy < kBusyTimeMin ? std::nullopt : std::optional(busy);
}

}  // namespace runahead
