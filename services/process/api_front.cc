#include "services/process/api_front.h"

#include <chrono>

#include "services/gateway/jobs_routes.h"
#include "services/gateway/status_routes.h"
#include "services/version.h"

namespace runahead {
namespace {

int64_t unix_time_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

GatewayOptions of_this_build(GatewayOptions options) {
  options.build = {.version = kVersion, .revision = kRevision};
  return options;
}

}  // namespace

ApiFront::ApiFront(ApiFrontEnv env, ApiFrontOptions options)
    : jobs_({.executor = env.executor,
             .clock = env.clock,
             .rng = env.rng,
             .inference = env.inference,
             .store = env.job_store,
             .unix_time_ms = unix_time_ms,
             .stop_rule = [&codec = env.codec](const std::string& json) { return job_stop_rule(codec, json); }}),
      allow_remote_(options.gateway.http.allow_remote),
      admin_listen_(std::move(options.admin)),
      gateway_(env.executor, env.clock, env.inference, &jobs_, env.codec, env.metrics,
               of_this_build(std::move(options.gateway))) {
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
