#include "services/process/api_front.h"

#include <chrono>

#include "services/gateway/jobs_routes.h"
#include "services/version.h"

namespace runahead {
namespace {

int64_t unix_time_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

GatewayOptions gateway_options(const ApiFrontOptions& options) {
  GatewayOptions gateway{.model_name = options.model_name,
                         .model_aliases = {"default", options.model_alias},
                         .generation_defaults = options.generation_defaults,
                         .api_keys_file = options.settings.api_keys,
                         .cors_origins = options.settings.cors_origins,
                         .request_timeout = from_seconds(options.settings.request_timeout),
                         .job_timeout = from_seconds(options.settings.job_timeout)};
  gateway.http.listen = options.http;
  gateway.http.allow_remote = options.allow_remote;
  gateway.http.idle_timeout = from_seconds(options.settings.idle_timeout);
  gateway.http.header_timeout = from_seconds(options.settings.header_timeout);
  gateway.http.body_timeout = from_seconds(options.settings.body_timeout);
  gateway.http.stall_timeout = from_seconds(options.settings.send_timeout);
  gateway.build = {.version = kVersion, .revision = kRevision};
  return gateway;
}

}  // namespace

ApiFront::ApiFront(ApiFrontEnv env, const ApiFrontOptions& options)
    : jobs_({.executor = env.executor,
             .clock = env.clock,
             .rng = env.rng,
             .inference = env.inference,
             .store = env.job_store,
             .unix_time_ms = unix_time_ms,
             .stop_rule = [&codec = env.codec](const std::string& json) { return job_stop_rule(codec, json); }}),
      jobs_api_(jobs_),
      gateway_(env.executor, env.clock, env.inference, &jobs_api_, env.codec, env.metrics, gateway_options(options)),
      allow_remote_(options.allow_remote),
      admin_listen_(options.settings.admin) {
  if (admin_listen_.empty()) return;
  admin_ = std::make_unique<AdminEndpoints>(
      env.executor, env.clock,
      AdminEndpoints::Sources{[&inference = env.inference] { return reasons_not_ready(inference.cluster()); },
                              [&metrics = env.metrics] { return metrics.text(); }});
}

Result<void> ApiFront::start(std::vector<JobHead> unfinished) {
  if (admin_) TRY(admin_->listen(TRY(parse_host_port(admin_listen_)), allow_remote_));
  TRY(gateway_.listen());
  jobs_.resume(std::move(unfinished));
  return {};
}

asio::awaitable<void> ApiFront::shutdown() {
  co_await gateway_.shutdown();
  co_await jobs_.stop();
  if (admin_) co_await admin_->shutdown();
}

}  // namespace runahead
