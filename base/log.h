// Logging: one line an event, on stderr. Never prompts, never keys. A line that cannot be written is lost, and nothing else.
//   threads  any.
//   cost     whoever logs compiles no library for it: messages are made in base/log.cc.
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace runahead {

// Called once at start by services; `process` names the role in every line. json: one JSON object a line.
void init_logging(std::string_view process, std::string_view level, bool json);

namespace log {

enum class Level { kDebug, kInfo, kWarn, kError, kCritical, kOff };

bool should_log(Level level);
void set_level(Level level);  // lines below it are left out
void set_level(std::string_view name);  // error, warn, info or debug
void flush();
void write(Level level, fmt::string_view format, fmt::format_args args);

template <class... Args>
void line(Level level, fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(level)) write(level, format, fmt::make_format_args(args...));
}
template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(Level::kDebug)) write(Level::kDebug, format, fmt::make_format_args(args...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(Level::kInfo)) write(Level::kInfo, format, fmt::make_format_args(args...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(Level::kWarn)) write(Level::kWarn, format, fmt::make_format_args(args...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (should_log(Level::kError)) write(Level::kError, format, fmt::make_format_args(args...));
}
template <class... Args>
void critical(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kCritical, format, fmt::make_format_args(args...));
}

}  // namespace log
}  // namespace runahead
