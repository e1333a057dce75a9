// What is set of a gateway: held whole by all that pass it on, and by its routes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "services/gateway/request/generation_defaults.h"
#include "services/http/http_server.h"
#include "services/tracing/traced_request.h"

namespace runahead {

class FileStore;

struct BuildInfo {
  std::string version;   // "0.1.0"
  std::string revision;  // git commit, or empty
};

struct GatewayOptions {
  HttpServerOptions http;
  std::string model_name;                  // what /v1/models and answers show
  std::vector<std::string> model_aliases;  // other names that requests may give, such as the one on the command line
  GenerationDefaults generation_defaults;  // for requests that do not say how to sample or how long
  std::filesystem::path api_keys_file;  // empty: no key is needed
  std::vector<std::string> cors_origins;  // whose pages may read the answers in a browser; "*": all
  std::vector<std::string> hosts;  // as BrowserGuard::hosts, where no key is needed on loopback
  size_t generation_bytes_max = limits::kGenerationBytesMax;
  Duration request_timeout = limits::kRequestDeadline, job_timeout = limits::kJobDeadline;
  Duration drain_timeout = limits::kDrainTimeout;
  Duration ping_interval = limits::kSsePingInterval;
  uint64_t random_seed = 0;  // of ids and of requests without a seed; 0: from the operating system
  BuildInfo build;
  std::function<std::vector<std::string>()> more_reasons = {};  // why it is not ready, beside what the cluster says
  FileStore* files =
      nullptr;  // of /v1/files and /v1/batches, where jobs are kept; outlives the gateway. Null: there are none
  TraceSink* traces = nullptr;  // takes every request and job that has ended; outlives the gateway
};

}  // namespace runahead
