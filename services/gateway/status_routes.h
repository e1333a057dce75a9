// What operators and probes ask: /health, /livez, /readyz[?verbose], /version, /v1/cluster, /metrics, /openapi.json.
#pragma once

#include <string>

#include "services/gateway/generation_routes.h"

namespace runahead {

struct BuildInfo {
  std::string version;   // "0.1.0"
  std::string revision;  // git commit, or empty
};

nlohmann::json cluster_json(const ClusterView& cluster);
// Why no request can be served now; empty if one can.
std::vector<std::string> reasons_not_ready(const ClusterView& cluster);

void add_status_routes(HttpRouter& router, const GatewayContext& context, const BuildInfo& build);

extern const char kOpenApiJson[];  // services/gateway/openapi.json, embedded by CMake

}  // namespace runahead
