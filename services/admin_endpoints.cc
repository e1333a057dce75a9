#include "services/admin_endpoints.h"

#include "services/gateway/api_error.h"
#include "services/gateway/http_router.h"
#include "services/gateway/status_routes.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr auto kDrain = 1s;                // probes are short
constexpr size_t kConnectionsMax = 64;     // kubelet and Prometheus, not the world

Task<HttpReply> text(std::string body, std::string type) {
  co_return HttpReply{.body = std::move(body), .content_type = std::move(type)};
}

Task<HttpReply> ready(std::vector<std::string> reasons) { co_return ready_reply(reasons); }

}  // namespace

class AdminEndpoints::Impl {
 public:
  Impl(asio::any_io_executor executor, Clock& clock, AdminOptions options)
      : options_(std::move(options)),
        server_(executor, clock, [this](Exchange& exchange) { return router_.handle(exchange); }, http_options(options_)) {
    router_.answer("GET", "/livez", [](const HttpRequest&) { return text("{\"status\":\"ok\"}", "application/json"); });
    router_.answer("GET", "/readyz", [this](const HttpRequest&) { return ready(options_.not_ready_reasons()); });
    router_.answer("GET", "/metrics", [this](const HttpRequest&) { return text(options_.metrics_text(), kMetricsContentType); });
    router_.answer("GET", "/version", [this](const HttpRequest&) {
      return text(to_text({{"version", options_.version}, {"revision", options_.revision}}), "application/json");
    });
  }

  Result<void> listen() { return server_.listen(); }
  uint16_t port() const { return server_.port(); }
  asio::awaitable<void> shutdown() { return server_.shutdown(kDrain); }

 private:
  static HttpServerOptions http_options(const AdminOptions& options) {
    HttpServerOptions http;
    http.address = options.address;
    http.port = options.port;
    http.connections_max = kConnectionsMax;
    return http;
  }

  AdminOptions options_;
  HttpRouter router_;
  HttpServer server_;
};

AdminEndpoints::AdminEndpoints(asio::any_io_executor executor, Clock& clock, AdminOptions options)
    : impl_(std::make_unique<Impl>(executor, clock, std::move(options))) {}
AdminEndpoints::~AdminEndpoints() = default;

Result<void> AdminEndpoints::listen() { return impl_->listen(); }
uint16_t AdminEndpoints::port() const { return impl_->port(); }
asio::awaitable<void> AdminEndpoints::shutdown() { return impl_->shutdown(); }

}  // namespace runahead
