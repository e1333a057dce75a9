#include "services/engine/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "base/utf8.h"

namespace runahead {
namespace {

constexpr int kBarColumns = 30, kBarColumnsNarrow = 10;  // narrow where the words need the room
constexpr int kColumnsDefault = 80;
constexpr double kLinesAfterSeconds = 1;
constexpr double kGuessAfterSeconds = 0.5, kGuessAfterFraction = 0.02;  // before, a guess jumps about

int terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kColumnsDefault;
}

}  // namespace

ProgressBar::ProgressBar(std::string what, bool wanted)
    : what_(std::move(what)),
      style_(!wanted               ? Style::kNone
             : stderr_takes_bars() ? Style::kBar
                                   : Style::kLines) {}

void ProgressBar::show(double fraction, std::string_view detail) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  const int tenth = static_cast<int>(10 * fraction);
  const std::string told = std::string(detail) + time_left_text(fraction, seconds());
  if (style_ == Style::kBar) {
    std::fprintf(stderr, "\r%s\033[K", bar_text(what_, fraction, told, terminal_columns() - 1).c_str());
    shown_ = true;
  } else if (style_ == Style::kLines && tenth > last_tenth_ && seconds() >= kLinesAfterSeconds) {
    log::info("{}: {} % {}", what_, tenth * 10, told);
  }
  last_tenth_ = tenth;
}

void ProgressBar::clear() {
  if (std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
}

double ProgressBar::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

std::string time_left_text(double fraction, double seconds_so_far) {
  if (seconds_so_far < kGuessAfterSeconds || fraction < kGuessAfterFraction || fraction >= 1) return {};
  const auto left = std::llround(std::ceil(seconds_so_far / fraction * (1 - fraction)));
  return left < 120 ? fmt::format(", {} s left", left) : fmt::format(", {} min left", (left + 59) / 60);
}

std::string bar_text(std::string_view what, double fraction, std::string_view detail, int columns) {
  const auto room = static_cast<size_t>(std::max(0, columns));
  const auto line_with = [&](int bar_columns) {
    const auto full = static_cast<size_t>(bar_columns * fraction);
    return fmt::format("{} [{}{}] {:3.0f} % {}", what, std::string(full, '#'),
                       std::string(static_cast<size_t>(bar_columns) - full, '.'), 100 * fraction, detail);
  };
  // A character takes at most as many columns as it has bytes: counted in bytes the line never wraps.
  std::string line = line_with(kBarColumns);
  if (line.size() > room) line = line_with(kBarColumnsNarrow);
  return std::string(line.substr(0, utf8_valid_prefix(std::string_view(line).substr(0, room))));
}

bool stderr_takes_bars() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDERR_FILENO) && terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
}

}  // namespace runahead
