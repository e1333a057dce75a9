#include "services/gateway/status_routes.h"

#include "services/http/api_error.h"
#include "services/http/http_target.h"

namespace runahead {
namespace {

using nlohmann::json;
using Access = HttpRouter::Access;

json worker_json(const WorkerView& worker) {
  return {{"id", worker.id},
          {"name", worker.name},
          {"role", worker.role},
          {"state", worker.state},
          {"device", worker.device},
          {"transport", worker.transport},
          {"pages_total", worker.pages_total},
          {"pages_free", worker.pages_free},
          {"running", worker.running},
          {"tokens_per_second", worker.tokens_per_second},
          {"link_bytes_per_second", worker.link_bytes_per_second}};
}

bool has_role(const ClusterView& cluster, std::string_view role) {
  for (const WorkerView& worker : cluster.workers)
    if (worker.role == role && worker.state == "ready") return true;
  return false;
}

Task<HttpReply> ready(const GatewayContext& context, bool verbose) {
  const ClusterView cluster = context.inference.cluster();
  std::vector<std::string> reasons = reasons_not_ready(cluster);
  if (reasons.empty() && context.options.more_reasons) reasons = context.options.more_reasons();
  co_return ready_reply(reasons, verbose ? json({{"cluster", cluster_json(cluster)}}) : json::object());
}

Task<HttpReply> text(std::string body, std::string type) {
  co_return HttpReply{.body = std::move(body), .content_type = std::move(type)};
}

Task<HttpReply> cluster(const GatewayContext& context) {
  co_return json_reply(cluster_json(context.inference.cluster()));
}

Task<HttpReply> version(const BuildInfo& build) {
  co_return json_reply({{"version", build.version}, {"revision", build.revision}});
}

bool asks_verbose(const HttpRequest& request) {
  const auto params = parse_query(request.query);
  return params && !params->empty() && params->front().name == "verbose";
}

}  // namespace

std::vector<std::string> reasons_not_ready(const ClusterView& cluster) {
  std::vector<std::string> reasons;
  if (cluster.draining) reasons.push_back("the service is draining");
  if (!cluster.disagreement.empty()) {
    reasons.push_back(cluster.disagreement);
    return reasons;
  }
  if (!has_role(cluster, "prefill")) reasons.push_back("no prefill worker is ready");
  if (!has_role(cluster, "decode")) reasons.push_back("no decode worker is ready");
  return reasons;
}

HttpReply ready_reply(const std::vector<std::string>& reasons, json body) {
  body["status"] = reasons.empty() ? "ok" : "unavailable";
  if (reasons.empty()) return json_reply(body);
  std::string all;
  for (const std::string& reason : reasons) all += (all.empty() ? "" : "; ") + reason;
  body["reasons"] = reasons;
  body.update(error_json({ErrorCode::kUnavailable, all, ""}));
  HttpReply reply = json_reply(body, 503);
  reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

json cluster_json(const ClusterView& view) {
  json workers = json::array();
  for (const WorkerView& worker : view.workers) workers.push_back(worker_json(worker));
  return {{"epoch", view.epoch},          {"fingerprint", view.fingerprint},
          {"compute", view.compute},      {"context_len", view.context_len},
          {"draining", view.draining},    {"running", view.running},
          {"waiting", view.waiting},      {"queued_prompt_tokens", view.queued_prompt_tokens},
          {"workers", std::move(workers)}};
}

void add_status_routes(HttpRouter& router, const GatewayContext& context) {
  router.answer("GET", "/health", [&context](const HttpRequest&) { return ready(context, false); }, Access::kProbe);
  router.answer(
      "GET", "/livez", [](const HttpRequest&) { return text("{\"status\":\"ok\"}", "application/json"); },
      Access::kProbe);
  // The verbose form names workers: it is for holders of a key, as /v1/cluster is.
  router.answer(
      "GET", "/readyz",
      [&context](const HttpRequest& request) { return ready(context, request.authorized && asks_verbose(request)); },
      HttpRouter::Rules{.access = Access::kProbe, .query = {"verbose"}});
  router.answer("GET", "/version", [&context](const HttpRequest&) { return version(context.options.build); });
  router.answer("GET", "/v1/cluster", [&context](const HttpRequest&) { return cluster(context); }, Access::kWatch);
  router.answer("GET", "/metrics",
                [&context](const HttpRequest&) { return text(context.metrics.text(), kMetricsContentType); });
  router.answer("GET", "/openapi.json", [](const HttpRequest&) { return text(kOpenApiJson, "application/json"); });
}

}  // namespace runahead
