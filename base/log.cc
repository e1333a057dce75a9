#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json_text.h"

namespace runahead {
namespace {

constexpr size_t kMessageBytesMax = 4 << 10;  // what a person reads; a peer's name can have megabytes

// The message of a line, whatever bytes it quotes: one line for people, or a JSON string.
class MessageFlag final : public spdlog::custom_flag_formatter {
 public:
  explicit MessageFlag(bool json) : json_(json) {}
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& line) override {
    const std::string_view text(message.payload.data(), message.payload.size());
    const std::string safe = json_ ? to_text(text.substr(0, kMessageBytesMax)) : printable_line(text, kMessageBytesMax);
    line.append(safe.data(), safe.data() + safe.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<MessageFlag>(json_); }

 private:
  bool json_;
};

std::unique_ptr<spdlog::formatter> formatter_of(bool json) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(json ? spdlog::pattern_time_type::utc
                                                                    : spdlog::pattern_time_type::local);
  formatter->add_flag<MessageFlag>('*', json);
  formatter->set_pattern(json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","process":"%n","message":%*})"
                              : "%H:%M:%S.%e %^%-5l%$ %n: %*");
  return formatter;
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

// Colours only on a terminal, and not if NO_COLOR is set (no-color.org), CLICOLOR is 0 or TERM is dumb.
spdlog::color_mode color_mode() {
  if (!environment("NO_COLOR").empty() || environment("CLICOLOR") == "0" || environment("TERM") == "dumb")
    return spdlog::color_mode::never;
  return spdlog::color_mode::automatic;  // colours on a terminal
}

spdlog::level::level_enum level_of(log::Level level) {
  using namespace spdlog::level;
  constexpr std::array kLevels = {debug, info, warn, err, critical, off};
  return kLevels[static_cast<size_t>(level)];
}

}  // namespace

namespace log {

bool should_log(Level level) { return spdlog::should_log(level_of(level)); }
void set_level(Level level) { spdlog::set_level(level_of(level)); }
void set_level(std::string_view name) { spdlog::set_level(spdlog::level::from_str(std::string(name))); }

void flush() { spdlog::default_logger_raw()->flush(); }

void write(Level level, fmt::string_view format, fmt::format_args args) {
  try {
    spdlog::default_logger_raw()->log(level_of(level), fmt::vformat(format, args));
  } catch (const std::exception&) {  // no memory for it
  }
}

}  // namespace log

void init_logging(std::string_view process, std::string_view level, bool json) {
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(json ? spdlog::color_mode::never : color_mode());
  auto logger = std::make_shared<spdlog::logger>(std::string(process), std::move(sink));
  logger->set_formatter(formatter_of(json));
  logger->set_level(spdlog::level::from_str(std::string(level)));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace runahead
