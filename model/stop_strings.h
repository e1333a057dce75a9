// StopStrings: cuts a stream of text at the first stop string, exactly. Text that may be the beginning of a stop string
// is held back until it is decided, so nothing of a stop string is ever emitted.
//   Pieces are valid UTF-8 each (the tokenizer's decoder holds incomplete characters back); emitted text is cut at the
//   ends of characters only, because stop strings are whole characters too.
//   Of several stop strings the one that ends first wins, and of those that end together the longest.
//   threads   one at a time; one object per stream.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

// kInvalidArgument (param "stop"): over kStopStringsMax strings, an empty or overlong one, or invalid UTF-8.
Result<void> validate_stop_strings(const std::vector<std::string>& stops);

class StopStrings {
 public:
  struct Piece {
    std::string emit;      // safe to show
    bool stopped = false;  // a stop string was found; what follows is ignored
  };

  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  Piece push(std::string_view text);
  // The end of the stream: what was held back.
  std::string flush();

 private:
  size_t undecided() const;

  std::vector<std::string> stops_;
  std::string held_;  // shorter than the longest stop string between calls
  bool stopped_ = false;
};

}  // namespace runahead
