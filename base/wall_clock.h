// The wall clock, for what people and other systems read: it may jump, so no duration is measured by it (base/clock.h).
#pragma once

#include <chrono>
#include <cstdint>

namespace runahead {

// Since 1970, in UTC without leap seconds.
inline int64_t unix_time_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}
inline int64_t unix_time_ms() { return unix_time_ns() / 1'000'000; }
inline int64_t unix_time_s() { return unix_time_ns() / 1'000'000'000; }

}  // namespace runahead
