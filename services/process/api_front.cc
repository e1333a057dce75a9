#include "services/process/api_front.h"

#include <unistd.h>

#include "base/wall_clock.h"
#include "services/gateway/job_text.h"
#include "services/gateway/status_routes.h"
#include "services/gateway/trace_routes.h"
#include "services/version.h"

namespace runahead {
namespace {

Result<std::unique_ptr<OtlpExporter>> make_exporter(const std::string& url, Rng& rng, OtlpSink& sink) {
  if (url.empty()) return nullptr;
  OtlpEndpoint endpoint = TRY(parse_otlp_endpoint(url));
  OtlpResource resource{.version = kVersion, .instance = "coordinator-" + std::to_string(getpid())};
  return std::make_unique<OtlpExporter>(std::move(endpoint), std::move(resource), rng.next(), sink);
}

}  // namespace

ApiFront::ApiFront(ApiFrontEnv env, const ApiFrontOptions& options)
    : inference_(env.inference),
      traces_(make_exporter(options.otlp_endpoint, env.rng, env.metrics)),
      canary_(options.canary_deadline > Duration{0}
                  ? std::make_unique<Canary>(
                        env.executor, env.clock, env.inference, options.canary_deadline,
                        [&metrics = env.metrics](bool passed, double seconds) { metrics.canary(passed, seconds); })
                  : nullptr),
      gate_(env.executor, env.clock),
      jobs_(jobs_env(env)),
      allow_remote_(options.gateway.http.allow_remote),
      admin_listen_(options.admin),
      hosts_(options.gateway.hosts),
      gateway_(env.executor, env.clock, env.inference, &jobs_, env.codec, env.metrics,
               gateway_options(options.gateway, env.files)) {
  if (admin_listen_.empty()) return;
  admin_ =
      std::make_unique<AdminEndpoints>(env.executor, env.clock,
                                       AdminEndpoints::Sources{[this] { return reasons_not_ready(); },
                                                               [&metrics = env.metrics] { return metrics.text(); }});
}

JobServiceEnv ApiFront::jobs_env(const ApiFrontEnv& env) {
  JobServiceEnv jobs{.executor = env.executor,
                     .clock = env.clock,
                     .rng = env.rng,
                     .inference = env.inference,
                     .store = env.job_store,
                     .unix_time_ms = unix_time_ms,
                     .stop_rule = [&codec = env.codec](const std::string& json) { return job_stop_rule(codec, json); },
                     .on_change = [&metrics = env.metrics](const JobCounts& counts) { metrics.jobs_changed(counts); }};
  if (traces_ && *traces_ != nullptr)
    jobs.on_end = [exporter = traces_->get()](const JobView& job) {
      exporter->request_ended(std::make_shared<const TracedRequest>(traced(job)));
    };
  return jobs;
}

GatewayOptions ApiFront::gateway_options(GatewayOptions options, FileStore* files) {
  options.files = files;
  options.build = {.version = kVersion, .revision = kRevision};
  if (traces_ && *traces_ != nullptr) {
    options.traces = traces_->get();
    options.http.record_traces = true;
  }
  if (canary_) options.more_reasons = [canary = canary_.get()] { return canary->reasons_not_ready(); };
  return options;
}

std::vector<std::string> ApiFront::reasons_not_ready() const {
  std::vector<std::string> reasons = runahead::reasons_not_ready(inference_.cluster());
  if (reasons.empty() && canary_) reasons = canary_->reasons_not_ready();
  return reasons;
}

Result<void> ApiFront::start(std::vector<JobHead> unfinished) {
  if (!traces_) return std::unexpected(traces_.error());
  if (admin_) TRY(admin_->listen(TRY(parse_host_port(admin_listen_)), allow_remote_, hosts_));
  TRY(gateway_.listen());
  jobs_.resume(std::move(unfinished));
  gateway_.resume_batches();
  if (canary_) gate_.spawn(canary_->run());
  return {};
}

asio::awaitable<void> ApiFront::shutdown() {
  if (canary_) canary_->stop();
  co_await gateway_.shutdown();
  co_await jobs_.stop();
  if (admin_) co_await admin_->shutdown();
  co_await gate_.close();
}

}  // namespace runahead
