// What a browser says of the page that asks, and what a page whose name was rebound cannot hide.
#include "services/http/browser_guard.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using Headers = std::map<std::string, std::string>;

std::string refusal(const BrowserGuard& guard, Headers headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  const auto reply = guard.refuses(request);
  if (!reply) return "";
  EXPECT_EQ(reply->status, 403);
  return reply->error_code;
}

TEST(BrowserGuard, ProgramsAreNotTouched) {
  const BrowserGuard guard{.hosts = std::vector<std::string>{}};
  for (const Headers& headers :
       {Headers{}, {{"host", "localhost:8000"}}, {{"host", "127.0.0.1:8000"}, {"user-agent", "curl"}}, {{"host", ""}}})
    EXPECT_EQ(refusal(guard, headers), "");
}

TEST(BrowserGuard, SecFetchSiteDecidesWhereABrowserSendsIt) {
  const BrowserGuard guard;
  const auto site = [&](const std::string& value, const std::string& origin = "http://localhost:8000") {
    return refusal(guard, {{"host", "localhost:8000"}, {"sec-fetch-site", value}, {"origin", origin}});
  };
  for (const char* own : {"same-origin", "none"}) {
    EXPECT_EQ(site(own), "") << own;
    EXPECT_EQ(site(own, "https://llm.example"), "") << "a proxy has changed Host";
  }
  for (const char* other : {"cross-site", "same-site", "SAME-ORIGIN", "same-origin, cross-site", "?"})
    EXPECT_EQ(site(other), "foreign_origin") << other;
  EXPECT_EQ(refusal(guard, {{"host", "localhost"}, {"sec-fetch-site", "cross-site"}}), "foreign_origin")
      << "an image, a form that GETs: no Origin";
}

TEST(BrowserGuard, ElseOriginDoes) {
  const BrowserGuard guard;
  struct Case {
    const char *host, *origin;
    bool own;
  };
  for (const Case& one : {Case{"localhost:8000", "http://localhost:8000", true},
                          {"LLM.example", "https://llm.EXAMPLE", true},
                          {"[fd00::1]:8000", "http://[fd00::1]:8000", true},
                          {"localhost:8000", "http://localhost:3000", false},
                          {"localhost:8000", "http://localhost", false},
                          {"localhost:8000", "https://evil.example", false},
                          {"localhost:8000", "http://localhost:8000.evil.example", false},
                          {"localhost:8000", "http://x@localhost:8000", false},
                          {"localhost:8000", "localhost:8000", false},
                          {"localhost:8000", "null", false},
                          {"null", "null", false},
                          {"", "http://", false},
                          {"", "nonsense", false}})
    EXPECT_EQ(refusal(guard, {{"host", one.host}, {"origin", one.origin}}), one.own ? "" : "foreign_origin")
        << one.origin;
}

TEST(BrowserGuard, PagesOfNamedOriginsMayAsk) {
  const BrowserGuard some{.origins = {"https://chat.example", "http://localhost:3000"}}, all{.origins = {"*"}};
  const Headers from_chat = {{"host", "h"}, {"origin", "https://chat.example"}, {"sec-fetch-site", "cross-site"}};
  const Headers from_evil = {{"host", "h"}, {"origin", "https://evil.example"}, {"sec-fetch-site", "cross-site"}};
  const Headers from_nobody = {{"host", "h"}, {"origin", "null"}},
                image = {{"host", "h"}, {"sec-fetch-site", "cross-site"}};
  EXPECT_EQ(refusal(some, from_chat), "");
  for (const Headers& other : {from_evil, from_nobody, image}) {
    EXPECT_EQ(refusal(some, other), "foreign_origin");
    EXPECT_EQ(refusal(all, other), "");
  }
}

TEST(BrowserGuard, NamesOfLoopbackAndNamedOnesAreOurs) {
  const BrowserGuard guard{.hosts = std::vector<std::string>{"llm.example", "[fd00::1]"}};
  for (const char* own :
       {"localhost", "LocalHost:8000", "chat.localhost:1", "127.0.0.1", "127.0.0.1:8000", "127.8.9.1:80", "[::1]",
        "[::1]:8000", "[::ffff:127.0.0.1]:8000", "llm.example", "LLM.example:8000", "[fd00::1]:8000", "localhost:"})
    EXPECT_EQ(refusal(guard, {{"host", own}}), "") << own;
  for (const char* other : {"evil.example",
                            "evil.example:8000",
                            "localhost.evil.example",
                            "evillocalhost",
                            "localhost:80:80",
                            "localhost:x",
                            "llm.example.evil.example",
                            "a.llm.example",
                            "10.0.0.1",
                            "0.0.0.0",
                            "127.0.0.1.evil.example",
                            "127.1",
                            "[::2]:80",
                            "::1",
                            "[127.0.0.1]",
                            "[localhost]",
                            "x@localhost",
                            "localhost, evil.example",
                            ":8000",
                            "*",
                            "[",
                            "]",
                            "[]"})
    EXPECT_EQ(refusal(guard, {{"host", other}}), "unknown_host") << other;
  EXPECT_EQ(refusal({.hosts = std::vector<std::string>{"*"}}, {{"host", "evil.example"}}), "");
  EXPECT_EQ(refusal({}, {{"host", "evil.example"}}), "") << "where Host is not asked";
}

TEST(BrowserGuard, TheErrorSaysWhatToDo) {
  HttpRequest request;
  request.headers = {{"host", "evil.example\x1b[31m"}};
  const auto host = BrowserGuard{.hosts = std::vector<std::string>{}}.refuses(request);
  ASSERT_TRUE(host);
  const auto error = nlohmann::json::parse(host->body)["error"];
  EXPECT_EQ(error["type"], "permission_error");
  EXPECT_NE(error["message"].get<std::string>().find("--http-hosts"), std::string::npos);
  EXPECT_EQ(host->body.find('\x1b'), std::string::npos);
  request.headers = {{"origin", "https://evil.example"}};
  const auto page = BrowserGuard{}.refuses(request);
  ASSERT_TRUE(page);
  for (const char* words : {"'https://evil.example'", "--cors-origin"})
    EXPECT_NE(page->body.find(words), std::string::npos) << page->body;
}

TEST(BrowserGuard, NamesOfAFlagHaveNoSchemeAndNoPort) {
  for (const char* name : {"llm.example", "localhost", "10.0.0.1", "[fd00::1]", "*"})
    EXPECT_TRUE(is_host_name(name)) << name;
  for (const char* name : {"", "http://llm.example", "llm.example:80", "fd00::1", "[x]", "a b", "a/b", "x@y"})
    EXPECT_FALSE(is_host_name(name)) << name;
}

// A gateway on loopback that needs no key.
class GuardedGatewayTest : public GatewayTest {
 protected:
  void SetUp() override {
    options_.hosts = {"Named.example"};
    start();
  }
  RawAnswer ask(const std::string& route, const std::string& fields) {
    const std::string body = route.starts_with("POST") ? R"({"prompt":"a","max_tokens":1})" : "";
    return client().request(route + " HTTP/1.1\r\n" + fields + "Content-Length: " + std::to_string(body.size()) +
                            "\r\n\r\n" + body);
  }
};

TEST_F(GuardedGatewayTest, APostOfAnotherPageStartsNothing) {
  const std::string local = "Host: localhost:8000\r\n";
  for (const char* field : {"Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n",
                            "Sec-Fetch-Site: same-site\r\n"}) {
    const RawAnswer answer = ask("POST /v1/completions", local + field);
    EXPECT_EQ(answer.status, 403) << field;
    EXPECT_EQ(answer.error_code(), "foreign_origin");
  }
  EXPECT_TRUE(inference_.requests().empty());
  EXPECT_EQ(metrics_.rejected(), std::vector<std::string>(4, "foreign_origin"));
  EXPECT_EQ(ask("POST /v1/completions", local + "Origin: http://localhost:8000\r\n").status, 200);
  EXPECT_EQ(inference_.requests().size(), 1u);
}

TEST_F(GuardedGatewayTest, NoRouteAnswersAForeignPageOrNameButTheOpenOnes) {
  const std::set<std::string> open = {"GET /",      "GET /page.css", "GET /page.js",
                                      "GET /livez", "GET /readyz",   "GET /health"};
  std::set<std::string> answered;
  for (const char* fields : {"Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "Host: evil.example\r\n"})
    for (const std::string& route : gateway_->routes()) {
      const RawAnswer answer = ask(route, fields);
      if (answer.status != 403) answered.insert(route);
      EXPECT_EQ(answer.status == 200, open.contains(route)) << route << " " << answer.status;
    }
  EXPECT_EQ(answered, open);
  EXPECT_EQ(ask("GET /nothing", "Host: evil.example\r\n").status, 403) << "nor is it told what there is";
  const RawAnswer verbose = ask("GET /readyz?verbose", "Host: evil.example\r\n");
  EXPECT_EQ(verbose.status, 200);
  EXPECT_FALSE(verbose.json().contains("cluster")) << "nor who works here";
  EXPECT_TRUE(ask("GET /readyz?verbose", "Host: localhost\r\n").json().contains("cluster"));
}

TEST_F(GuardedGatewayTest, HostIsANameOfLoopbackOrOfTheFlag) {
  for (const char* host : {"localhost", "127.0.0.1:1", "[::1]", "named.example:80"})
    EXPECT_EQ(ask("GET /v1/models", "Host: " + std::string(host) + "\r\n").status, 200) << host;
  const RawAnswer other = ask("GET /v1/models", "Host: evil.example:8000\r\n");
  EXPECT_EQ(other.status, 403);
  EXPECT_EQ(other.error_code(), "unknown_host");
  EXPECT_EQ(client().request("GET /v1/models HTTP/1.0\r\n\r\n").status, 200) << "HTTP/1.0 names no Host";
}

}  // namespace
}  // namespace runahead
