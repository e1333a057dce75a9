// MetricsRegistry: thin helpers over prometheus-cpp that services/metrics/metrics*.cc share: families by name, buckets, the
// text.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <string>
#include <vector>

#include "transport/tls/tls_identity.h"

namespace runahead {

using Labels = prometheus::Labels;
using Buckets = prometheus::Histogram::BucketBoundaries;

namespace buckets {
extern const Buckets kTtft;  // vLLM's bounds, seconds: dashboards carry over
extern const Buckets kRequest;  // vLLM's bounds of whole requests, seconds
extern const Buckets kStage;  // 100 us to 160 s
extern const Buckets kToken;  // between tokens, seconds
extern const Buckets kCount;  // 1-2-5 up to a million
extern const Buckets kBytes;  // 2^10, 2^12, ... 2^34
extern const Buckets kRatio;  // of errors
extern const Buckets kImbalance;  // most over mean: 1 to 5
}  // namespace buckets

class MetricsRegistry {
 public:
  prometheus::Family<prometheus::Counter>& counters(const std::string& name, const std::string& help);
  prometheus::Family<prometheus::Gauge>& gauges(const std::string& name, const std::string& help);
  prometheus::Family<prometheus::Histogram>& histograms(const std::string& name, const std::string& help);
  std::string text() const;
  std::vector<prometheus::MetricFamily> collect() const { return registry_.Collect(); }

 private:
  prometheus::Registry registry_;
};

// runahead_tls_refused_peers_total, every reason there from the start.
class TlsRefusalCounters {
 public:
  explicit TlsRefusalCounters(MetricsRegistry& registry);
  void add(TlsRefusal why) { counters_[static_cast<size_t>(why)]->Increment(); }

 private:
  std::array<prometheus::Counter*, kTlsRefusals.size()> counters_;  // of the registry
};

// runahead_event_loop_stall_seconds.
class LoopStalls {
 public:
  explicit LoopStalls(MetricsRegistry& registry);
  void add(double seconds) { seconds_->Observe(seconds); }

 private:
  prometheus::Histogram* seconds_;  // of the registry
};

// runahead_memory_bound_bytes: what each part of the process's memory may come to.
class MemoryBounds {
 public:
  explicit MemoryBounds(MetricsRegistry& registry);
  void set(const std::string& part, uint64_t bytes);

 private:
  prometheus::Family<prometheus::Gauge>* parts_;  // of the registry
};

// A sample that is no number is none: prometheus-cpp 1.0.1 counts a NaN in the lowest bucket, and its sum is NaN for ever.
void observe(prometheus::Histogram& histogram, double value);

}  // namespace runahead
