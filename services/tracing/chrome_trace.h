// A timeline as Chrome's trace event JSON, which ui.perfetto.dev opens: "M" names processes and threads, "X" is a span, "s" and
// "f" an arrow for each hop of K/V. Microseconds since the request's first byte. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "services/tracing/timeline.h"

namespace runahead {

nlohmann::json chrome_trace(const TracedRequest& request);

}  // namespace runahead
