#include "services/engine/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "base/utf8.h"

namespace runahead {
namespace {

constexpr int kBarColumns = 30, kColumnsDefault = 80;
constexpr double kLinesAfterSeconds = 1;

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
  if (style_ == Style::kBar) {
    std::fprintf(stderr, "\r%s\033[K", bar_text(what_, fraction, detail, terminal_columns() - 1).c_str());
    shown_ = true;
  } else if (style_ == Style::kLines && tenth > last_tenth_ && seconds() >= kLinesAfterSeconds) {
    log::info("{}: {} % {}", what_, tenth * 10, detail);
  }
  last_tenth_ = tenth;
}

void ProgressBar::clear() {
  if (std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
}

double ProgressBar::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

std::string bar_text(std::string_view what, double fraction, std::string_view detail, int columns) {
  const int full = static_cast<int>(kBarColumns * fraction);
  const std::string bar = fmt::format("[{}{}] {:3.0f} %", std::string(static_cast<size_t>(full), '#'),
                                      std::string(static_cast<size_t>(kBarColumns - full), '.'), 100 * fraction);
  const auto room = static_cast<size_t>(std::max(0, columns));
  // A character takes at most as many columns as it has bytes: counted in bytes the line never wraps.
  const std::string line = fmt::format("{} {} {}", what, bar, detail);
  return std::string(line.substr(0, utf8_valid_prefix(std::string_view(line).substr(0, room))));
}

bool stderr_takes_bars() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDERR_FILENO) && terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
}

}  // namespace runahead
