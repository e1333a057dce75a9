#include "services/admin_endpoints.h"

#include "services/gateway/api_error.h"
#include "services/gateway/http_router.h"
#include "services/gateway/status_routes.h"
#include "services/version.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr auto kDrain = 1s;             // probes are short
constexpr size_t kConnectionsMax = 64;  // kubelet and Prometheus, not the world

Task<HttpReply> text(std::string body, std::string type) {
  co_return HttpReply{.body = std::move(body), .content_type = std::move(type)};
}

Task<HttpReply> ready(bool registered) {
  std::vector<std::string> reasons;
  if (!registered) reasons.push_back("the coordinator has not accepted this worker yet");
  co_return ready_reply(reasons);
}

}  // namespace

class AdminEndpoints::Impl {
 public:
  Impl(asio::any_io_executor executor, Clock& clock, WorkerMetrics& metrics, std::function<bool()> is_ready)
      : executor_(executor), clock_(clock), ready_(std::move(is_ready)) {
    router_.answer("GET", "/livez", [](const HttpRequest&) { return text("{\"status\":\"ok\"}", "application/json"); });
    router_.answer("GET", "/readyz", [this](const HttpRequest&) { return ready(ready_()); });
    router_.answer("GET", "/metrics",
                   [&metrics](const HttpRequest&) { return text(metrics.text(), kMetricsContentType); });
    router_.answer("GET", "/version", [](const HttpRequest&) {
      return text(to_text({{"version", kVersion}, {"revision", kRevision}}), "application/json");
    });
  }

  Result<void> listen(HostPort address, bool allow_remote) {
    HttpServerOptions options{
        .listen = std::move(address), .allow_remote = allow_remote, .connections_max = kConnectionsMax};
    server_ = std::make_unique<HttpServer>(
        executor_, clock_, [this](Exchange& exchange) { return router_.handle(exchange); }, std::move(options));
    return server_->listen();
  }
  std::string address() const { return to_string(server_->address()); }
  asio::awaitable<void> shutdown() {
    if (server_) co_await server_->shutdown(kDrain);
  }

 private:
  asio::any_io_executor executor_;
  Clock& clock_;
  std::function<bool()> ready_;
  HttpRouter router_;
  std::unique_ptr<HttpServer> server_;
};

AdminEndpoints::AdminEndpoints(asio::any_io_executor executor, Clock& clock, WorkerMetrics& metrics,
                               std::function<bool()> ready)
    : impl_(std::make_unique<Impl>(executor, clock, metrics, std::move(ready))) {}
AdminEndpoints::~AdminEndpoints() = default;

Result<void> AdminEndpoints::listen(HostPort address, bool allow_remote) {
  return impl_->listen(std::move(address), allow_remote);
}
std::string AdminEndpoints::address() const {
  return impl_->address();
}
asio::awaitable<void> AdminEndpoints::shutdown() {
  return impl_->shutdown();
}

}  // namespace runahead
