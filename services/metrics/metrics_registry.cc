#include "services/metrics/metrics_registry.h"

#include <prometheus/text_serializer.h>

#include <cmath>

namespace runahead {

namespace buckets {
const Buckets kTtft = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                       1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kRequest = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kStage = {.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 80, 160};
const Buckets kToken = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5};
const Buckets kCount = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                        2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
const Buckets kBytes = {1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18,       1 << 20,        1 << 22,
                        1 << 24, 1 << 26, 1 << 28, 1 << 30, 4.294967296e9, 1.7179869184e10};
const Buckets kRatio = {.01, .02, .05, .1, .2, .5, 1, 2};
const Buckets kImbalance = {1, 1.05, 1.1, 1.25, 1.5, 2, 3, 5};
}  // namespace buckets

prometheus::Family<prometheus::Counter>& MetricsRegistry::counters(const std::string& name, const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
}

prometheus::Family<prometheus::Gauge>& MetricsRegistry::gauges(const std::string& name, const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
}

prometheus::Family<prometheus::Histogram>& MetricsRegistry::histograms(const std::string& name,
                                                                       const std::string& help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_);
}

std::string MetricsRegistry::text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

TlsRefusalCounters::TlsRefusalCounters(MetricsRegistry& registry) {
  auto& family = registry.counters("runahead_tls_refused_peers_total", "peers that a TLS handshake did not believe");
  for (size_t i = 0; i < counters_.size(); ++i) counters_[i] = &family.Add({{"reason", std::string(kTlsRefusals[i])}});
}

LoopStalls::LoopStalls(MetricsRegistry& registry)
    : seconds_(&registry
                    .histograms("runahead_event_loop_stall_seconds",
                                "times that the event loop kept other work waiting for over 50 ms")
                    .Add({}, Buckets{.1, .2, .5, 1, 2, 5, 10})) {}

MemoryBounds::MemoryBounds(MetricsRegistry& registry)
    : parts_(&registry.gauges("runahead_memory_bound_bytes", "what a part of this process's memory may come to")) {}

void MemoryBounds::set(const std::string& part, uint64_t bytes) {
  parts_->Add({{"part", part}}).Set(static_cast<double>(bytes));
}

void observe(prometheus::Histogram& histogram, double value) {
  if (std::isfinite(value)) histogram.Observe(value);
}

}  // namespace runahead
