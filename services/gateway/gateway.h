// Gateway: the HTTP front of a cluster: OpenAI's API, jobs, probes and metrics over one InferenceService.
//   threads  the io_context thread, and two of its own (the text lane) for work that grows with a text.
//   owner    what is passed in outlives the Gateway. Destroy it after shutdown() has returned, or after the io_context
//            has stopped for good.
//   limits   base/limits.h, HTTP.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "services/gateway/generation_routes.h"
#include "services/gateway/jobs_api.h"
#include "services/gateway/status_routes.h"

namespace runahead {

struct GatewayOptions {
  HttpServerOptions http;
  std::string model_name;                  // what /v1/models and answers show
  std::vector<std::string> model_aliases;  // other names that requests may give, such as the one on the command line
  GenerationDefaults generation_defaults;  // for requests that do not say how to sample or how long
  std::filesystem::path api_keys_file;  // empty: no key is needed
  std::vector<std::string> cors_origins;  // whose pages may read the answers in a browser; "*": all
  Duration request_timeout = limits::kRequestDeadline, job_timeout = limits::kJobDeadline;
  Duration drain_timeout = limits::kDrainTimeout;
  Duration ping_interval = limits::kSsePingInterval;
  uint64_t random_seed = 0;  // of ids and of requests without a seed; 0: from the operating system
  BuildInfo build;
};

class Gateway {
 public:
  // jobs: null if the service keeps none.
  Gateway(asio::any_io_executor executor, Clock& clock, InferenceService& inference, JobsApi* jobs,
          const TextCodec& codec, GatewayMetrics& metrics, GatewayOptions options);
  ~Gateway();

  // Reads the API keys and listens. kAddressInUse, kNotFound, kInvalidConfig, kInvalidArgument.
  Result<void> listen();
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
