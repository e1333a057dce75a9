#include "services/process/admin_endpoints.h"

#include "services/gateway/status_routes.h"
#include "services/http/api_error.h"
#include "services/http/http_router.h"
#include "services/version.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
using Access = HttpRouter::Access;

constexpr auto kDrain = 1s;             // probes are short
constexpr size_t kConnectionsMax = 64;  // kubelet and Prometheus, not the world

Task<HttpReply> text(std::string body, std::string type) {
  co_return HttpReply{.body = std::move(body), .content_type = std::move(type)};
}

Task<HttpReply> ready(std::vector<std::string> reasons) { co_return ready_reply(reasons); }

}  // namespace

class AdminEndpoints::Impl {
 public:
  Impl(asio::any_io_executor executor, Clock& clock, Sources sources)
      : executor_(executor), clock_(clock), sources_(std::move(sources)) {
    // kWatch: it says more than that the process lives, which is not for the pages in a browser.
    const auto add = [this](const char* path, HttpRouter::Answer answer, Access access = Access::kProbe) {
      router_.answer("GET", path, std::move(answer), access);
    };
    add("/livez", [](HttpRequest&) { return text("{\"status\":\"ok\"}", "application/json"); });
    for (const char* path : {"/readyz", "/health"})
      add(path, [this](HttpRequest&) { return ready(sources_.reasons_not_ready()); });
    add("/metrics", [this](HttpRequest&) { return text(sources_.metrics(), kMetricsContentType); }, Access::kWatch);
    add(
        "/version",
        [](HttpRequest&) {
          return text(to_text({{"version", kVersion}, {"revision", kRevision}}), "application/json");
        },
        Access::kWatch);
  }

  Result<void> listen(HostPort address, bool allow_remote, std::vector<std::string> hosts) {
    hosts.push_back(address.host);
    HttpServerOptions options{
        .listen = std::move(address), .allow_remote = allow_remote, .connections_max = kConnectionsMax};
    server_ = std::make_unique<HttpServer>(executor_, clock_, router_, std::move(options));
    TRY(server_->listen());
    if (server_->on_loopback()) router_.require_hosts(std::move(hosts));
    return {};
  }
  std::string address() const { return to_string(server_->address()); }
  std::vector<std::string> routes() const { return router_.routes(); }
  asio::awaitable<void> shutdown() {
    if (server_) co_await server_->shutdown(kDrain);
  }

 private:
  asio::any_io_executor executor_;
  Clock& clock_;
  Sources sources_;
  HttpRouter router_;
  std::unique_ptr<HttpServer> server_;
};

AdminEndpoints::AdminEndpoints(asio::any_io_executor executor, Clock& clock, Sources sources)
    : impl_(std::make_unique<Impl>(executor, clock, std::move(sources))) {}
AdminEndpoints::~AdminEndpoints() = default;

Result<void> AdminEndpoints::listen(HostPort address, bool allow_remote, std::vector<std::string> hosts) {
  return impl_->listen(std::move(address), allow_remote, std::move(hosts));
}
std::string AdminEndpoints::address() const { return impl_->address(); }
std::vector<std::string> AdminEndpoints::routes() const { return impl_->routes(); }
asio::awaitable<void> AdminEndpoints::shutdown() { return impl_->shutdown(); }

}  // namespace runahead
