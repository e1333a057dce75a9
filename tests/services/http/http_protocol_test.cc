// HTTP as clients, browsers, proxies and scrapers speak it (RFC 9110, RFC 9112): methods, targets, keys, CORS, what
// happens before a body is read, and who gives way when all places are taken.
#include <ctime>
#include <fstream>

#include "services/http/access_log.h"
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class HttpProtocolTest : public GatewayTest {
 protected:
  static std::string head(const std::string& request_line, const std::string& fields = "") {
    return request_line + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n";
  }
  // Everything of an answer to HEAD, and of one without content: its header.
  static std::string header_of(RawClient& client, const std::string& request) {
    client.send(request);
    return client.receive_head();
  }
};

TEST_F(HttpProtocolTest, HeadIsGetWithoutItsBodyAndTheConnectionGoesOn) {
  RawClient client = this->client();
  const RawAnswer got = client.request(head("GET /v1/models"));
  for (int i = 0; i < 3; ++i) {
    const std::string header = header_of(client, head("HEAD /v1/models"));
    EXPECT_NE(header.find(" 200 OK"), std::string::npos) << header;
    EXPECT_NE(header.find("Content-Length: " + got.headers.at("content-length")), std::string::npos) << header;
  }
  EXPECT_NE(header_of(client, head("HEAD /nothing")).find(" 404 "), std::string::npos);
  EXPECT_NE(header_of(client, head("HEAD /tokenize")).find(" 405 "), std::string::npos);
  EXPECT_EQ(client.request(head("GET /livez")).json()["status"], "ok") << "in step after all of them";
  client.send(head("HEAD /livez") + head("OPTIONS /v1/models") + head("GET /version"));
  EXPECT_NE(client.receive_head().find(" 200 "), std::string::npos);
  EXPECT_NE(client.receive_head().find(" 204 "), std::string::npos);
  EXPECT_EQ(client.receive().json()["version"], "1.2.3") << "also when they come all at once";
}

TEST_F(HttpProtocolTest, OptionsSaysWhatARouteAccepts) {
  RawClient client = this->client();
  const std::string models = header_of(client, head("OPTIONS /v1/models"));
  EXPECT_NE(models.find(" 204 No Content"), std::string::npos) << models;
  EXPECT_NE(models.find("Allow: GET, HEAD, OPTIONS\r\n"), std::string::npos) << models;
  EXPECT_EQ(models.find("Content-Length"), std::string::npos) << models;
  EXPECT_EQ(models.find("Access-Control"), std::string::npos) << "no origin is allowed by default";
  EXPECT_NE(header_of(client, head("OPTIONS /tokenize")).find("Allow: POST, OPTIONS\r\n"), std::string::npos);
  EXPECT_NE(header_of(client, head("OPTIONS *")).find("Allow: GET, HEAD, POST, DELETE, OPTIONS\r\n"),
            std::string::npos);
  EXPECT_EQ(client.request(head("OPTIONS /nothing")).status, 404);
  EXPECT_EQ(client.request(head("DELETE /v1/models")).headers.at("allow"), "GET, HEAD, OPTIONS");
}

TEST_F(HttpProtocolTest, TargetsAreUnderstoodAsProxiesAndPeopleWriteThem) {
  RawClient client = this->client();
  for (const char* target :
       {"/livez/", "/livez?", "/livez?&", "http://x/livez", "HTTP://other:8000/livez?", "https://x/livez", "/%6Civez"})
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 200) << target;
  EXPECT_EQ(client.request(head("GET /v1/models/t%6Fy")).json()["id"], "toy");
  EXPECT_EQ(client.request(head("GET /v1/models/a%2Fb")).status, 404);
  for (const char* target : {"//livez", "/livez//", "/%", "/%zz", "/%00", "/livez%2f"})
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 404) << target;
  for (const char* target :
       {"/liv%65z", "http:///livez", "http://x:99999/livez", "http://u@x/livez", "http://[::1]/livez"})
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 200) << target;
  for (const char* target : {"/", "//", "/?", "http://", "http://x", "http://x?"})  // the page
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 200) << target;
  for (const char* target : {"/livez#f", "/livez+", "/livez%20", "/livez%00", "/%z", "/./livez", "/../livez",
                             "/%2e/livez", "/caf\xc3\xa9", "/\xff\xfe", "/a|b", "/a{b}", "/a\\b"})
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 404) << target;
  EXPECT_EQ(client.request(head("GET /" + std::string(12'000, 'a'))).status, 404);
  client.send("\r\n\r\n" + head("GET /livez"));
  EXPECT_EQ(client.receive().status, 200) << "empty lines before a request are nothing";
}

TEST_F(HttpProtocolTest, QueryParametersThatARouteDoesNotKnowAreRefusedByName) {
  RawClient client = this->client();
  const std::pair<const char*, const char*> targets[] = {{"/livez?x=1", "x"},
                                                         {"http://other:8000/livez?a", "a"},
                                                         {"/livez?x=%zz", "x"},
                                                         {"/livez?caf\xc3\xa9", "caf\xc3\xa9"},
                                                         {"/livez?a[]=1", "a[]"},
                                                         {"/livez?a?b", "a?b"},
                                                         {"/livez?&%61=", "a"},
                                                         {"/?utm_source=x", "utm_source"},
                                                         {"/readyz?verbose&Verbose", "Verbose"},
                                                         {"/v1/models?limit=1", "limit"},
                                                         {"/v1/models/toy?x", "x"},
                                                         {"/v1/jobs/job-1?x", "x"},
                                                         {"/v1/jobs?x", "x"}};
  for (const auto& [target, name] : targets) {
    const RawAnswer answer = client.request(head(std::string("GET ") + target));
    EXPECT_EQ(answer.status, 400) << target;
    EXPECT_EQ(answer.json()["error"]["param"], name) << target;
  }
  EXPECT_EQ(client.request(head("GET /livez?" + std::string(12'000, 'a'))).status, 400);
  for (const std::string& route : gateway_->routes()) {
    const RawAnswer answer = client.request(head(route + "?no_such_parameter=1"));
    EXPECT_EQ(answer.json()["error"]["param"], "no_such_parameter") << route;
  }
}

TEST_F(HttpProtocolTest, WhatIsNoPathIsRefused) {
  for (const char* target : {"", "?", "livez", "*", "http:/livez", "http:livez", "ftp://x/livez", "/a\x7f", "/a\x01"}) {
    RawClient client = this->client();
    EXPECT_EQ(client.request(head(std::string("GET ") + target)).status, 400) << target;
  }
}

TEST_F(HttpProtocolTest, EveryAnswerHasADate) {
  RawClient client = this->client();
  std::vector<RawAnswer> answers = {client.request(head("GET /livez")), client.request(head("GET /nothing")),
                                    client.request(post_bytes("/v1/completions", R"({"prompt":"a","stream":true})")),
                                    client.request("rubbish\r\n\r\n")};
  for (RawAnswer& answer : answers) {
    const std::string& date = answer.headers["date"];
    std::tm parsed{};
    const char* end = strptime(date.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parsed);
    EXPECT_TRUE(end != nullptr && *end == 0) << answer.status << ": " << date;
  }
}

TEST_F(HttpProtocolTest, OldClientsKeepTheirConnectionIfTheyAsk) {
  RawClient client = this->client();
  const std::string request = "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  EXPECT_EQ(client.request(request).headers.at("connection"), "keep-alive");
  EXPECT_EQ(client.request(request).status, 200);
  EXPECT_EQ(client.request("GET /livez HTTP/1.0\r\n\r\n").headers.at("connection"), "close");
  EXPECT_TRUE(client.closed_within(1000));
}

TEST_F(HttpProtocolTest, RefusedBodiesLeaveTheConnectionInStep) {
  RawClient client = this->client();
  const std::string fields = "Content-Type: text/plain\r\nContent-Length: 37\r\n";
  const std::string smuggled = "GET /v1/cluster HTTP/1.1\r\nHost: x\r\n\r\n";  // 37 bytes
  ASSERT_EQ(smuggled.size(), 37u);
  for (const auto& [line, status] :
       {std::pair("POST /tokenize", 415), {"POST /nothing", 404}, {"PUT /tokenize", 405}}) {
    EXPECT_EQ(client.request(head(line, fields) + smuggled).status, status) << line;
    EXPECT_EQ(client.request(head("GET /livez")).json()["status"], "ok") << line << ": the body was no request";
  }
  EXPECT_EQ(client.request(head("GET /livez", "Content-Length: 37\r\n") + smuggled).status, 200) << "a GET with a body";
  EXPECT_EQ(client.request(head("GET /livez")).json()["status"], "ok");
  const RawAnswer large = client.request(head("POST /nothing", "Content-Length: 1000000\r\n"));
  EXPECT_EQ(large.status, 404);
  EXPECT_EQ(large.headers.at("connection"), "close") << "nobody reads a megabyte to throw it away";
  EXPECT_TRUE(client.closed_within(5000));
}

TEST_F(HttpProtocolTest, ExpectContinue) {
  const auto ask = [&](const std::string& expect) {
    return head("POST /tokenize", "Expect: " + expect + "\r\nContent-Length: 15\r\n");
  };
  RawClient client = this->client();
  client.send(ask("100-Continue"));
  EXPECT_NE(client.receive_head().find("100 Continue"), std::string::npos);
  EXPECT_EQ(client.request(R"({"prompt":"ab"})").json()["count"], 2);
  RawClient refused = this->client();
  const RawAnswer answer = refused.request(head("POST /nothing", "Expect: 100-continue\r\nContent-Length: 15\r\n"));
  EXPECT_EQ(answer.status, 404) << "the answer comes without the body";
  EXPECT_EQ(answer.headers.at("connection"), "close");
  const std::string body = R"({"prompt":"ab"})";
  const RawAnswer old =
      this->client().request("POST /tokenize HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 15\r\n\r\n" + body);
  EXPECT_EQ(old.json()["count"], 2) << "HTTP/1.0 knows no 100";
}

class DeadlineTest : public HttpProtocolTest {
 protected:
  void SetUp() override {
    options_.request_timeout = 7s;
    start();
  }
};

TEST_F(DeadlineTest, RequestsHaveTheOneOfTheService) {
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 200);
  EXPECT_EQ(inference_.requests().back().deadline, Duration(7s));
}

TEST(AccessLog, OneLineEscapedAndCut) {
  HttpRequest request{.method = "GET", .path = "/v1/models", .request_id = "req-1", .peer = "127.0.0.1:5"};
  EXPECT_EQ(
      access_line({.request = request, .status = 200, .sent_bytes = 17, .seconds = 0.25}),
      "request id=req-1 trace=- peer=127.0.0.1:5 method=GET path=/v1/models status=200 bytes=17 seconds=0.250000");
  request.method.clear();
  request.path = "/a\"b\\c\x1b[31m\xff" + std::string(1000, 'x');
  const std::string line = access_line({.request = request, .status = 408, .complete = false});
  EXPECT_NE(line.find("method=- path=/a%22b%5Cc%1B[31m%FFxxx"), std::string::npos) << line;
  EXPECT_TRUE(line.ends_with("... status=408 bytes=0 seconds=0.000000 cut=true")) << line;
  EXPECT_LT(line.size(), 400u);
}

class KeyedTest : public HttpProtocolTest {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "/protocol-keys-" + std::to_string(getpid());
    std::ofstream(path_) << "secret\n";
    options_.api_keys_file = path_;
    options_.cors_origins = {"https://chat.example", "http://localhost:3000"};
    start();
  }
  void TearDown() override {
    stop();
    std::filesystem::remove(path_);
  }
  std::string path_;
};

TEST_F(KeyedTest, TheSchemeIsBearerInAnyCase) {
  for (const char* value : {"Bearer secret", "bearer secret", "BEARER secret", "bEaReR   secret"})
    EXPECT_EQ(get("/v1/models", std::string("Authorization: ") + value + "\r\n").status, 200) << value;
  for (const char* value :
       {"Bearer", "Bearersecret", "Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer\tsecret"})
    EXPECT_EQ(get("/v1/models", std::string("Authorization: ") + value + "\r\n").status, 401) << value;
}

TEST_F(KeyedTest, TheKeyIsLookedAtBeforeTheBody) {
  RawClient client = this->client();
  const RawAnswer answer = client.request(head("POST /v1/completions", "Content-Length: 16000000\r\n"));
  EXPECT_EQ(answer.status, 401) << "not a byte of the body was sent";
  EXPECT_EQ(answer.headers.at("connection"), "close");
  RawClient chunked = this->client();
  EXPECT_EQ(chunked.request(head("POST /v1/completions", "Transfer-Encoding: chunked\r\n")).status, 401);
}

TEST_F(KeyedTest, PagesOfAllowedOriginsMayCall) {
  RawClient client = this->client();
  const std::string preflight =
      header_of(client, head("OPTIONS /v1/chat/completions",
                             "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
                             "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n"));
  for (const char* field : {" 204 ", "Access-Control-Allow-Origin: https://chat.example\r\n", "Vary: Origin\r\n",
                            "Access-Control-Allow-Methods: POST, OPTIONS\r\n", "Access-Control-Max-Age: ",
                            "Access-Control-Allow-Headers: authorization,content-type,x-stainless-os\r\n"})
    EXPECT_NE(preflight.find(field), std::string::npos) << field << " in " << preflight;
  const std::string origin = "Origin: http://localhost:3000\r\n", key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(get("/v1/models", origin + key).headers.at("access-control-allow-origin"), "http://localhost:3000");
  EXPECT_EQ(get("/v1/models", origin).headers.at("access-control-allow-origin"), "http://localhost:3000")
      << "also a 401";
  const RawAnswer stream = post("/v1/completions", R"({"prompt":"a","stream":true})", origin + key);
  EXPECT_EQ(stream.headers.at("access-control-allow-origin"), "http://localhost:3000");
  const RawAnswer other = get("/v1/models", "Origin: https://evil.example\r\n" + key);
  EXPECT_EQ(other.status, 403) << "not even with a key";
  EXPECT_FALSE(other.headers.contains("access-control-allow-origin"));
  EXPECT_EQ(other.headers.at("vary"), "Origin") << "a cache must not show it to the allowed ones";
}

TEST_F(KeyedTest, WithAKeyHostIsNotAsked) {
  RawClient client = this->client();
  const std::string key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(client.request("GET /v1/models HTTP/1.1\r\nHost: llm.example\r\n" + key + "\r\n").status, 200);
  EXPECT_EQ(get("/v1/models", "Origin: https://evil.example\r\n").status, 401) << "a stranger is not told more";
}

class BodiesTest : public HttpProtocolTest {
 protected:
  void SetUp() override {
    options_.http.bodies_bytes_max = 1 << 20;
    start();
  }
  RawAnswer tokenize(size_t bytes) { return post("/tokenize", R"({"prompt":")" + std::string(bytes, 'x') + R"("})"); }
};

TEST_F(BodiesTest, SmallChunkedRequestsCountAsWhatTheyAre) {
  inference_.set({.between = 20ms, .endless = true});
  std::vector<RawClient> clients;
  const std::string body = R"({"prompt":"a","stream":true,"max_tokens":4000})";
  for (int i = 0; i < 40; ++i) {
    clients.push_back(client());
    clients.back().send(head("POST /v1/completions", "Transfer-Encoding: chunked\r\n") + "2e\r\n" + body +
                        "\r\n0\r\n\r\n");
  }
  for (RawClient& client : clients) EXPECT_NE(client.receive_head().find(" 200 OK"), std::string::npos);
}

TEST_F(BodiesTest, OfManyThatComeAtOnceTheFirstIsServed) {
  constexpr int kClients = 8;
  const std::string body = R"({"prompt":")" + std::string(700'000, 'x') + R"("})";
  const std::string request = post_bytes("/tokenize", body);
  std::vector<RawClient> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(client());
  for (size_t at = 0; at < request.size(); at += 20'000)  // a little of each in turn
    for (RawClient& client : clients) client.send(std::string_view(request).substr(at, 20'000));
  std::map<int, int> answers;
  for (RawClient& client : clients) ++answers[client.receive().status];
  EXPECT_GE(answers[200], 1) << "not all are refused";
  EXPECT_EQ(answers[200] + answers[429] + answers[0], kClients) << "0: cut before the answer was read";
}

class SilentBodiesTest : public BodiesTest {
 protected:
  void SetUp() override {
    options_.http.body_silence = 1s;
    BodiesTest::SetUp();
  }
};

TEST_F(SilentBodiesTest, AnnouncedBodiesTakeNoRoomAndSilenceEnds) {
  std::vector<RawClient> silent;
  for (int i = 0; i < 40; ++i) {
    silent.push_back(client());
    silent.back().send(head("POST /v1/completions", "Content-Length: 16000000\r\n"));
  }
  EXPECT_EQ(tokenize(200'000).json()["count"], 200'000);
  for (RawClient& client : silent) {
    const RawAnswer answer = client.receive();
    EXPECT_EQ(answer.status, 408);
    EXPECT_EQ(answer.error_code(), "request_timeout");
  }
}

TEST_F(BodiesTest, BytesThatHaveComeAreBoundedAndSmallRequestsGoOn) {
  RawClient half = client();
  half.send(head("POST /tokenize", "Content-Length: 900000\r\n") + std::string(800'000, ' '));
  for (int i = 0; i < 30; ++i) EXPECT_EQ(get("/livez").status, 200);  // the loop has read it meanwhile
  EXPECT_EQ(tokenize(300'000).status, 429) << "1 MiB is full; the younger gives way";
  EXPECT_EQ(tokenize(50'000).status, 200) << "what fits a connection's buffer needs no room";
  half.close();
  EXPECT_TRUE(eventually([&] { return tokenize(300'000).status == 200; })) << "and the room is free again";
}

class AnswersTest : public HttpProtocolTest {
 protected:
  void SetUp() override {
    options_.http.answers_bytes_max = 8 << 20;
    start();
  }
  // Each id is a control character, which is 6 bytes of JSON, and comes twice.
  static std::string answer_of_bytes(size_t bytes) {
    std::string ids = "1";
    for (size_t i = 12; i < bytes; i += 12) ids += ",1";
    return post_bytes("/detokenize", R"({"tokens":[)" + ids + "]}");
  }
};

TEST_F(AnswersTest, WhoReadsForLongestGivesWay) {
  RawClient first(gateway_->port(), /*receive_buffer_bytes=*/4096), second = client();
  first.send(answer_of_bytes(6'000'000));
  EXPECT_NE(first.receive_head().find(" 200 OK"), std::string::npos) << "it is being sent, and stays so";
  EXPECT_EQ(post("/tokenize", R"({"prompt":"a"})").status, 200) << "what is small needs no room";
  second.send(answer_of_bytes(6'000'000));
  const RawAnswer whole = second.receive();
  EXPECT_EQ(whole.status, 200);
  EXPECT_TRUE(whole.complete);
  EXPECT_TRUE(first.closed_within(5000)) << "its end is missing, which clients notice";
  RawClient third = client();
  EXPECT_TRUE(third.request(answer_of_bytes(7'000'000)).complete) << "the room is free again";
}

TEST_F(AnswersTest, WhatAllRoomIsTooSmallForIsRefused) {
  const RawAnswer answer = client().request(answer_of_bytes(9'000'000));
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.error_code(), "too_large");
}

class RoomTest : public HttpProtocolTest {
 protected:
  void SetUp() override {
    options_.http.connections_max = 6;
    options_.http.unauthenticated_max = 3;
    options_.http.header_timeout = 100ms;  // idle for longer than this gives way
    start();
  }
};

TEST_F(RoomTest, SilentConnectionsGiveWayOldestFirst) {
  std::vector<RawClient> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(client());
  EXPECT_EQ(get("/livez").status, 200) << "whoever asks is served";
  EXPECT_TRUE(silent.front().closed_within(5000));
  EXPECT_FALSE(silent.back().closed_within(50)) << "the newest stay";
}

TEST_F(RoomTest, RequestsInWorkStayAndTheLongestIdleGoes) {
  inference_.set({.between = 20ms, .endless = true});
  const std::string endless = post_bytes("/v1/completions", R"({"prompt":"a","stream":true,"max_tokens":4000})");
  std::vector<RawClient> clients;
  const auto add = [&](const std::string& request) {
    clients.push_back(client());
    clients.back().send(request);
    EXPECT_NE(clients.back().receive_head().find(" 200 "), std::string::npos);
  };
  add(head("GET /livez"));
  for (int i = 0; i < 5; ++i) add(endless);
  EXPECT_TRUE(eventually([&] { return get("/livez").status == 200; })) << "the idle one makes room";
  EXPECT_TRUE(clients[0].closed_within(5000));
  EXPECT_TRUE(eventually([&] {
    clients.push_back(client());
    clients.back().send(endless);
    return clients.back().receive_head().find(" 200 ") != std::string::npos;
  }));
  EXPECT_TRUE(eventually([&] { return client().receive().status == 503; })) << "all places are in work";
}

}  // namespace
}  // namespace runahead
