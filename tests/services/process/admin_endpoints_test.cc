#include "services/process/admin_endpoints.h"

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

TEST(AdminEndpoints, EveryRouteIsOneThatOpenApiDescribes) {
  asio::io_context io;
  AsioClock clock;
  const AdminEndpoints admin(io.get_executor(), clock, {[] { return std::vector<std::string>{}; }, [] { return ""; }});
  const std::set<std::string> described = described_routes();
  EXPECT_EQ(admin.routes().size(), 5u);
  for (const std::string& route : admin.routes()) EXPECT_TRUE(described.contains(route)) << route;
}

}  // namespace
}  // namespace runahead
