// Lines that strangers and peers can cause as often as they like: a burst of limits::kLogBurst a cause, then one every
// limits::kLogPause that says how many were left out. `cause` is a literal: the table has an entry for each, for ever.
//   threads  any.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace runahead {

// The bookkeeping of one cause. Pure.
class LogLimit {
 public:
  // True: write the line.
  bool admit(Time now);
  // Lines left out since the last one that was written; counts anew.
  uint64_t take_left_out() { return std::exchange(left_out_, 0); }

 private:
  Time window_{0};
  int in_window_ = 0;
  bool quiet_ = false;  // the burst is over
  uint64_t left_out_ = 0;
};

// What a peer says, cut for a line of log or an error's message.
std::string foreign(std::string_view text);

namespace detail {
// What to write behind the line; nothing: leave the line out.
bool log_admits(std::string_view cause, std::string& note);
}  // namespace detail

template <class... Args>
void warn_limited(std::string_view cause, fmt::format_string<Args...> format, Args&&... args) {
  std::string note;
  if (!log::should_log(log::Level::kWarn) || !detail::log_admits(cause, note)) return;
  log::warn("{}{}", fmt::format(format, std::forward<Args>(args)...), note);
}

template <class... Args>
void info_limited(std::string_view cause, fmt::format_string<Args...> format, Args&&... args) {
  std::string note;
  if (!log::should_log(log::Level::kInfo) || !detail::log_admits(cause, note)) return;
  log::info("{}{}", fmt::format(format, std::forward<Args>(args)...), note);
}

}  // namespace runahead
