// Gateway: the HTTP front of a cluster: OpenAI's API, jobs, requests, probes, metrics and a page over one
// InferenceService.
//   threads  the io_context thread, and two of its own (the text lane) for work that grows with a text.
//   owner    what is passed in outlives the Gateway. Destroy it after shutdown() has returned, or after the io_context
//            has stopped for good.
//   limits   base/limits.h, HTTP.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/jobs_api.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/gateway_options.h"
#include "services/gateway/request/text_codec.h"

namespace runahead {

class Gateway {
 public:
  // jobs: null if the service keeps none.
  Gateway(asio::any_io_executor executor, Clock& clock, InferenceService& inference, JobsApi* jobs,
          const TextCodec& codec, GatewayMetrics& metrics, GatewayOptions options);
  ~Gateway();

  // Reads the API keys and listens. kAddressInUse, kNotFound, kInvalidConfig, kInvalidArgument.
  Result<void> listen();
  // Goes on with the batches of an earlier process. Once, after its jobs have been resumed.
  void resume_batches();
  uint16_t port() const;
  std::string address() const;  // "host:port", with the port that was taken
  std::vector<std::string> routes() const;  // "GET /v1/models": what openapi.json describes
  // Stops accepting and lets what runs end within drain_timeout.
  asio::awaitable<void> shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
