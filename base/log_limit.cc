#include "base/log_limit.h"

#include <map>
#include <mutex>

#include "base/limits.h"

namespace runahead {

bool LogLimit::admit(Time now) {
  if (now - window_ >= limits::kLogPause) {
    quiet_ = in_window_ >= limits::kLogBurst || (quiet_ && left_out_ > 0);
    window_ = now;
    in_window_ = 0;
  }
  if (in_window_ >= (quiet_ ? 1 : limits::kLogBurst)) {
    ++left_out_;
    return false;
  }
  ++in_window_;
  return true;
}

std::string foreign(std::string_view text) {
  if (text.size() <= limits::kForeignTextBytesMax) return std::string(text);
  return std::string(text.substr(0, limits::kForeignTextBytesMax)) + "... (" + std::to_string(text.size()) + " bytes)";
}

bool detail::log_admits(std::string_view cause, std::string& note) {
  static std::mutex mutex;
  static std::map<std::string_view, LogLimit> causes;
  std::lock_guard lock(mutex);
  LogLimit& limit = causes[cause];
  if (!limit.admit(std::chrono::steady_clock::now().time_since_epoch())) return false;
  if (const uint64_t left_out = limit.take_left_out(); left_out > 0)
    note = " (" + std::to_string(left_out) + " more like it were not written)";
  return true;
}

}  // namespace runahead
