// The built-in page: that it is small, asks no other host, and is served as a browser wants it.
#include <filesystem>
#include <fstream>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

constexpr const char* kPaths[] = {"/", "/page.css", "/page.js"};

TEST_F(GatewayTest, PageIsUnder100KilobytesAndNamesNoOtherHost) {
  size_t bytes = 0;
  for (const char* path : kPaths) {
    const RawAnswer answer = get(path);
    ASSERT_EQ(answer.status, 200) << path;
    bytes += answer.body.size();
    for (const char* outside : {"http:", "https:", "//cdn", "src=\"//", "href=\"//", "url("})
      EXPECT_EQ(answer.body.find(outside), std::string::npos) << path << " has " << outside;
  }
  EXPECT_GT(bytes, 10'000u);
  EXPECT_LT(bytes, 100'000u);
}

TEST_F(GatewayTest, PageHasNoMarkupOrCodeFromText) {
  const std::string html = get("/").body, script = get("/page.js").body;
  for (const char* inlined : {"<style", "style=", "onclick", "<script>"})
    EXPECT_EQ(html.find(inlined), std::string::npos) << inlined;
  for (const char* made : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("})
    EXPECT_EQ(script.find(made), std::string::npos) << made;
}

TEST_F(GatewayTest, PageIsServedWithATypeAPolicyAndAnETag) {
  const char* types[] = {"text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"};
  for (size_t i = 0; i < std::size(kPaths); ++i) {
    const RawAnswer answer = get(kPaths[i]);
    EXPECT_EQ(answer.headers.at("content-type"), types[i]);
    EXPECT_EQ(answer.headers.at("x-content-type-options"), "nosniff");
    EXPECT_EQ(answer.headers.at("cache-control"), "no-cache");
    const std::string policy = answer.headers.at("content-security-policy");
    EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"));
    EXPECT_EQ(policy.find("unsafe"), std::string::npos);
    const std::string etag = answer.headers.at("etag");
    const RawAnswer again = get(kPaths[i], "If-None-Match: W/\"0\", " + etag + "\r\n");
    EXPECT_EQ(again.status, 304);
    EXPECT_EQ(again.body, "");
    EXPECT_FALSE(again.headers.contains("content-length"));  // or a client would wait for as much
    EXPECT_EQ(get(kPaths[i], "If-None-Match: \"0\"\r\n").status, 200);
  }
}

class PageWithKeys : public GatewayTest {
 protected:
  void SetUp() override {
    options_.api_keys_file = std::filesystem::path(::testing::TempDir()) / "page_test_keys";
    std::ofstream(options_.api_keys_file) << "secret\n";
    start();
  }
};

TEST_F(PageWithKeys, PageNeedsNoKeyAndItsDataDoes) {
  for (const char* path : kPaths) EXPECT_EQ(get(path).status, 200) << path;
  for (const char* path : {"/v1/cluster", "/v1/requests", "/v1/models", "/version"})
    EXPECT_EQ(get(path).status, 401) << path;
}

}  // namespace
}  // namespace runahead
