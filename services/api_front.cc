#include "services/api_front.h"

#include <chrono>

#include "services/gateway/jobs_routes.h"
#include "services/version.h"

namespace runahead {
namespace {

int64_t unix_time_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

GatewayOptions gateway_options(const ApiFrontOptions& options) {
  GatewayOptions gateway{.model_name = options.model_name,
                         .model_aliases = {"default", options.model_alias},
                         .api_keys_file = options.api_keys};
  gateway.http.listen = options.http;
  gateway.http.allow_remote = options.allow_remote;
  gateway.build = {.version = kVersion, .revision = kRevision};
  return gateway;
}

}  // namespace

ApiFront::ApiFront(ApiFrontEnv env, const ApiFrontOptions& options)
    : jobs_({.executor = env.executor, .clock = env.clock, .rng = env.rng, .inference = env.inference,
             .store = env.job_store,
             .unix_time_ms = unix_time_ms,
             .stop_rule = [&codec = env.codec](const std::string& json) { return job_stop_rule(codec, json); }}),
      jobs_api_(jobs_),
      gateway_(env.executor, env.clock, env.inference, &jobs_api_, env.codec, env.metrics, gateway_options(options)) {}

Result<void> ApiFront::start(std::vector<JobHead> unfinished) {
  TRY(gateway_.listen());
  jobs_.resume(std::move(unfinished));
  return {};
}

asio::awaitable<void> ApiFront::shutdown() {
  co_await gateway_.shutdown();
  co_await jobs_.stop();
}

}  // namespace runahead
