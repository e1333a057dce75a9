// What operators and probes ask: /health, /livez, /readyz[?verbose], /version, /v1/cluster, /metrics, /openapi.json.
#pragma once

#include <string>
#include <vector>

#include "services/gateway/generation_routes.h"

namespace runahead {

inline constexpr const char* kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

nlohmann::json cluster_json(const ClusterView& cluster);
// 200, or 503 with the reasons and an error object. `body` is what else to show.
HttpReply ready_reply(const std::vector<std::string>& reasons, nlohmann::json body = nlohmann::json::object());
// Why no request can be served now; empty if one can.
std::vector<std::string> reasons_not_ready(const ClusterView& cluster);

void add_status_routes(HttpRouter& router, const GatewayContext& context);

extern const char kOpenApiJson[];  // services/gateway/openapi.json, embedded by CMake

}  // namespace runahead
