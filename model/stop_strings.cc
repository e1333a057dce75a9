#include "model/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "model/chat_template_text.h"

namespace runahead {

Result<void> validate_stop_strings(const std::vector<std::string>& stops) {
  const auto invalid = [](std::string message) {
    return fail(ErrorCode::kInvalidArgument, std::move(message), "stop");
  };
  if (stops.size() > static_cast<size_t>(limits::kStopStringsMax)) {
    return invalid("give at most " + std::to_string(limits::kStopStringsMax) + " stop strings");
  }
  for (const std::string& stop : stops) {
    if (stop.empty()) return invalid("a stop string must not be empty");
    if (stop.size() > limits::kStopStringBytesMax) {
      return invalid("a stop string must be at most " + std::to_string(limits::kStopStringBytesMax) + " bytes long");
    }
    if (!jinja::is_valid_utf8(stop)) return invalid("a stop string must be valid UTF-8");
  }
  return {};
}

StopStrings::Piece StopStrings::push(std::string_view text) {
  Piece piece;
  piece.stopped = stopped_;
  if (stopped_) return piece;
  held_ += text;
  size_t cut = std::string::npos;
  size_t cut_end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < cut_end || (end == cut_end && at < cut)) {
      cut = at;
      cut_end = end;
    }
  }
  if (cut != std::string::npos) {
    stopped_ = piece.stopped = true;
    piece.emit = held_.substr(0, cut);
    held_.clear();
    return piece;
  }
  const size_t keep = undecided();
  piece.emit = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return piece;
}

// Length of the longest end of held_ that begins a stop string.
size_t StopStrings::undecided() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

std::string StopStrings::flush() { return std::exchange(held_, {}); }

}  // namespace runahead
