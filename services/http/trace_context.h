// TraceContext: a request's place in a distributed trace, as W3C's Trace Context (level 1) carries it in the header
// `traceparent`. Pure; ids come from an Rng.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/rng.h"

namespace runahead {

struct TraceContext {
  std::string trace_id;  // 32 lower-case hex digits
  std::string span_id;  // 16 of them: our span of this request
  std::string parent_span_id;  // the caller's span; empty: the trace begins here
  bool sampled = false;  // somebody records it

  // With our span, for the answer and for what we call: "00-TRACE-SPAN-01".
  std::string traceparent() const;
};

// What a `traceparent` says, with no span of ours yet; none if it is malformed, which begins a new trace. Of a version that is
// not known yet, what version 00 defines is read.
std::optional<TraceContext> parse_traceparent(std::string_view header);

// A new trace that begins here.
TraceContext new_trace(Rng& rng, bool sampled);
std::string new_span_id(Rng& rng);

}  // namespace runahead
