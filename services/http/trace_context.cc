#include "services/http/trace_context.h"

#include <algorithm>
#include <cstdio>

namespace runahead {
namespace {

// version "-" trace id "-" span id "-" flags
constexpr size_t kVersionEnd = 2, kTraceBegin = 3, kTraceDigits = 32, kSpanBegin = 36, kSpanDigits = 16,
                 kFlagsBegin = 53, kBytes = 55;
constexpr int kSampled = 1;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool is_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return hex_digit(c) >= 0; });
}

bool is_id(std::string_view text) { return is_hex(text) && text.find_first_not_of('0') != std::string_view::npos; }

std::string hex_of(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t not_zero(Rng& rng) {
  uint64_t value = rng.next();
  while (value == 0) value = rng.next();
  return value;
}

}  // namespace

std::string TraceContext::traceparent() const { return "00-" + trace_id + "-" + span_id + (sampled ? "-01" : "-00"); }

std::optional<TraceContext> parse_traceparent(std::string_view header) {
  if (header.size() < kBytes) return {};
  const std::string_view version = header.substr(0, kVersionEnd), trace_id = header.substr(kTraceBegin, kTraceDigits),
                         span_id = header.substr(kSpanBegin, kSpanDigits), flags = header.substr(kFlagsBegin, 2);
  const bool separated = header[kVersionEnd] == '-' && header[kSpanBegin - 1] == '-' && header[kFlagsBegin - 1] == '-';
  if (!separated || !is_hex(version) || version == "ff" || !is_id(trace_id) || !is_id(span_id) || !is_hex(flags))
    return {};
  // Later versions may have more behind another dash.
  if (header.size() > kBytes && (version == "00" || header[kBytes] != '-')) return {};
  return TraceContext{.trace_id = std::string(trace_id),
                      .span_id = {},
                      .parent_span_id = std::string(span_id),
                      .sampled = (hex_digit(flags[1]) & kSampled) != 0};
}

TraceContext new_trace(Rng& rng, bool sampled) {
  TraceContext trace{.trace_id = hex_of(not_zero(rng)), .span_id = {}, .parent_span_id = {}, .sampled = sampled};
  trace.trace_id += hex_of(rng.next());
  trace.span_id = new_span_id(rng);
  return trace;
}

std::string new_span_id(Rng& rng) { return hex_of(not_zero(rng)); }

}  // namespace runahead
