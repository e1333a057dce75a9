// ProgressBar: how far something is, and how long it will take, on stderr. On a terminal one line that is redrawn; elsewhere,
// and where TERM is dumb, a line of log per tenth, from the second on: what ends sooner needs none.
//   threads  one.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace runahead {

class ProgressBar {
 public:
  ProgressBar(std::string what, bool wanted);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // fraction: 0 to 1. detail: what stands behind the bar.
  void show(double fraction, std::string_view detail);
  // Takes the bar off the terminal; the next show() brings it back.
  void clear();
  double seconds() const;  // since it was made

 private:
  enum class Style { kNone, kBar, kLines };
  std::string what_;
  Style style_;
  bool shown_ = false;
  int last_tenth_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// "prefill [######........................]  20 % of 3227 tokens", at most `columns` wide.
std::string bar_text(std::string_view what, double fraction, std::string_view detail, int columns);

// ", 12 s left" where what is done allows a guess: it goes on as fast as it went. Else nothing.
std::string time_left_text(double fraction, double seconds_so_far);

// stderr is a terminal that understands escapes.
bool stderr_takes_bars();

}  // namespace runahead
