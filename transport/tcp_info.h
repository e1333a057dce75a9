// What the kernel knows of a TCP connection. Linux; any thread.
#pragma once

#include <optional>

#include "base/clock.h"

namespace runahead {

// How long the socket has had bytes that the peer had not acknowledged (TCP_INFO, tcpi_busy_time, Linux 4.10): the time on
// the wire, without the pauses in which there was nothing to send. It counts in the scheduler's ticks, 1 to 10 ms: what is
// shorter than kBusyTimeMin is none.
inline constexpr Duration kBusyTimeMin = std::chrono::milliseconds(40);
std::optional<Duration> tcp_busy_time(int socket);

// The least round trip that it has seen, about the path's own (tcpi_min_rtt, Linux 4.6). 0: unknown.
Duration tcp_round_trip(int socket);

}  // namespace runahead
