// Long work is cut into slices of about kLaneSlice, so that a short request waits for one slice of a long one, not for a
// layer of it. Pure arithmetic; any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/token_range.h"
#include "model/engine.h"

namespace runahead {

// A tenth of the idle TTFT of a short prompt (0.2 s on two laptop cores); two hundred hand-overs to the lane.
inline constexpr Duration kLaneSlice = std::chrono::milliseconds(20);

// What a worker measured at its start, of one layer. 0: not measured, then every slice is as short as the engine likes.
struct LayerSpeed {
  double seconds_per_token = 0;  // all that is linear
  double seconds_per_pair = 0;  // attention of one (query, key) pair
  int32_t rows_at_once = kPageTokens;  // Engine::rows_at_once()
};

// Rows a slice: a multiple of rows_at_once, and never less, for that costs more than it gives.
inline int32_t slice_rows(const LayerSpeed& speed, double seconds_per_row) {
  const double most = seconds_per_row > 0 ? seconds(kLaneSlice) / seconds_per_row / speed.rows_at_once : 1;
  return speed.rows_at_once * static_cast<int32_t>(std::clamp(most, 1.0, 4096.0));
}

// `rows` rows in slices of `slice`; the last one takes what is left over.
inline std::vector<RowRange> cut_rows(int32_t rows, int32_t slice) {
  std::vector<RowRange> parts;
  for (int32_t begin = 0; rows - begin >= 2 * slice; begin += slice) parts.push_back({begin, begin + slice});
  const int32_t begin = parts.empty() ? 0 : parts.back().end;
  parts.push_back({begin, rows});
  return parts;
}

}  // namespace runahead
