// OtlpExporter: sends sampled requests that have ended to a collector of OpenTelemetry, over OTLP/HTTP with JSON bodies. A thread
// of its own makes the bodies and waits for the collector, so that no request waits for either.
//   threads  request_ended() on any; the sink is called on the exporter's thread and on the caller's.
//   limits   base/limits.h, tracing: what waits, a batch, one exchange. What finds no place, and what the collector does not
//            take at once or on a second try, is dropped and counted.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/rng.h"
#include "services/tracing/otlp.h"

namespace runahead {

// http://HOST:PORT or http://HOST:PORT/PATH, as OTEL_EXPORTER_OTLP_ENDPOINT has it: spans go to PATH/v1/traces.
struct OtlpEndpoint {
  std::string address;  // "host:port"
  std::string target;  // "/v1/traces"
};
Result<OtlpEndpoint> parse_otlp_endpoint(const std::string& url);  // kInvalidArgument

class OtlpSink {
 public:
  virtual ~OtlpSink() = default;
  // Any thread.
  virtual void spans_sent(int64_t spans) = 0;
  virtual void requests_dropped(int64_t requests) = 0;
};

class OtlpExporter final : public TraceSink {
 public:
  // sink outlives this.
  OtlpExporter(OtlpEndpoint endpoint, OtlpResource resource, uint64_t seed, OtlpSink& sink);
  ~OtlpExporter() override;  // sends what waits, if the collector takes it at once

  void request_ended(std::shared_ptr<const TracedRequest> request) override;

 private:
  using Batch = std::deque<std::shared_ptr<const TracedRequest>>;

  void serve();
  void send(Batch batch);
  bool post(const std::string& body, bool& again) const;

  const OtlpEndpoint endpoint_;
  const OtlpResource resource_;
  SeededRng span_ids_;  // the thread's
  OtlpSink& sink_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Batch queue_;  // by mutex_
  bool stopping_ = false;  // by mutex_
  std::thread thread_;  // the last: it uses the others
};

}  // namespace runahead
