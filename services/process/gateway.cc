#include "services/process/gateway.h"

#include <random>

#include "services/gateway/files_routes.h"
#include "services/gateway/jobs_routes.h"
#include "services/gateway/messages_routes.h"
#include "services/gateway/page/page_routes.h"
#include "services/gateway/requests_routes.h"
#include "services/gateway/responses/responses_routes.h"
#include "services/gateway/status_routes.h"
#include "services/gateway/text_routes.h"
#include "services/gateway/trace_routes.h"
#include "services/http/api_key_watcher.h"

namespace runahead {
namespace {

uint64_t seed_or_random(uint64_t seed) {
  if (seed != 0) return seed;
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

// Work that was sent and not taken: 4xx and 503. Other 5xx end work that was taken. A POST brings work, and what breaks
// before its method is known.
bool is_rejection(const HttpRequest& request, const HttpReply& reply) {
  const bool brings_work = request.method == "POST" || request.method.empty();
  if (reply.error_code == name(ErrorCode::kCancelled)) return false;  // taken, and then abandoned
  return brings_work && (reply.status < 500 || reply.error_code == name(ErrorCode::kUnavailable));
}

std::vector<std::string> with(std::vector<std::string> names, std::string one) {
  names.push_back(std::move(one));
  return names;
}

HttpServerOptions counting(HttpServerOptions options, GatewayMetrics& metrics) {
  options.on_error = [&metrics](const HttpRequest& request, const HttpReply& reply) {
    if (is_rejection(request, reply)) metrics.request_rejected(reply.error_code);
  };
  return options;
}

}  // namespace

class Gateway::Impl {
 public:
  Impl(asio::any_io_executor executor, Clock& clock, InferenceService& inference, JobsApi* jobs, const TextCodec& codec,
       GatewayMetrics& metrics, GatewayOptions options)
      : options_(std::move(options)),
        rng_(seed_or_random(options_.random_seed)),
        text_lane_(clock),
        requests_(clock, [this](const RequestEntry& ended) { trace(ended); }),
        memory_(options_.generation_bytes_max),
        context_{executor, text_lane_, clock, rng_, inference, codec, metrics, requests_, memory_, options_},
        batches_(options_.files != nullptr && jobs != nullptr
                     ? std::make_unique<BatchService>(context_, *jobs, *options_.files)
                     : nullptr),
        server_(executor, clock, router_, counting(options_.http, metrics)) {
    add_generation_routes(router_, context_);
    add_messages_routes(router_, context_);
    add_responses_routes(router_, context_, jobs);
    add_text_routes(router_, context_);
    add_jobs_routes(router_, context_, jobs);
    add_files_routes(router_, context_, batches_ ? options_.files : nullptr, batches_.get());
    add_batches_routes(router_, context_, batches_.get());
    add_requests_routes(router_, context_);
    add_trace_routes(router_, context_, jobs);
    add_page_routes(router_);
    add_status_routes(router_, context_);
    router_.allow_origins(options_.cors_origins);
  }
  Result<void> listen() {
    if (options_.api_keys_file.empty()) {
      TRY(server_.listen());
      if (server_.on_loopback()) router_.require_hosts(with(options_.hosts, options_.http.listen.host));
      return {};
    }
    ApiKeys keys = TRY(ApiKeys::load(options_.api_keys_file));
    router_.require_keys(keys);
    TRY(server_.listen());
    key_watcher_ =
        std::make_unique<ApiKeyWatcher>(context_.executor, options_.api_keys_file, std::move(keys),
                                        [this](ApiKeys changed) { router_.require_keys(std::move(changed)); });
    return {};
  }
  uint16_t port() const { return server_.port(); }
  std::string address() const { return to_string(server_.address()); }
  std::vector<std::string> routes() const { return router_.routes(); }
  void resume_batches() {
    if (batches_) batches_->resume();
  }
  asio::awaitable<void> shutdown() {
    if (key_watcher_) key_watcher_->close();
    if (batches_) co_await batches_->stop();
    co_await server_.shutdown(options_.drain_timeout);
  }

 private:
  void trace(const RequestEntry& ended) const {
    if (options_.traces == nullptr) return;
    options_.traces->request_ended(std::make_shared<const TracedRequest>(traced(ended, options_.model_name)));
  }

  GatewayOptions options_;
  SeededRng rng_;
  TextLane text_lane_;
  RequestList requests_;
  GenerationMemory memory_;
  HttpRouter router_;
  GatewayContext context_;
  std::unique_ptr<BatchService> batches_;  // null: none
  HttpServer server_;
  std::unique_ptr<ApiKeyWatcher> key_watcher_;  // null: no key is needed
};

Gateway::Gateway(asio::any_io_executor executor, Clock& clock, InferenceService& inference, JobsApi* jobs,
                 const TextCodec& codec, GatewayMetrics& metrics, GatewayOptions options)
    : impl_(std::make_unique<Impl>(executor, clock, inference, jobs, codec, metrics, std::move(options))) {}
Gateway::~Gateway() = default;

Result<void> Gateway::listen() { return impl_->listen(); }
void Gateway::resume_batches() { impl_->resume_batches(); }
uint16_t Gateway::port() const { return impl_->port(); }
std::string Gateway::address() const { return impl_->address(); }
std::vector<std::string> Gateway::routes() const { return impl_->routes(); }
asio::awaitable<void> Gateway::shutdown() { return impl_->shutdown(); }

}  // namespace runahead
