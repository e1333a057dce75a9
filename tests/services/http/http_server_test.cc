// HTTP at its edges: what is malformed, too large, too slow or too much gets one typed answer, and the service lives
// on.
#include <fstream>

#include "services/http/api_keys.h"
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class HttpServerTest : public GatewayTest {
 protected:
  void SetUp() override {
    options_.http.header_timeout = 300ms;
    options_.http.body_timeout = 300ms;
    options_.http.idle_timeout = 2s;
    options_.http.stall_timeout = 500ms;
    options_.drain_timeout = 2s;
    start();
  }
};

struct Malformed {
  const char* what;
  std::string bytes;
  int status;  // 0: closed without an answer
};

const std::string post = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
const std::string get = "GET /livez HTTP/1.1\r\nHost: x\r\n";

std::vector<Malformed> malformed_bodies() {
  return {
      {"length and chunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunked and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
      {"two equal lengths", post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400},
      {"two unlike lengths", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
      {"list of lengths", post + "Content-Length: 2, 2\r\n\r\n{}", 400},
      {"negative length", post + "Content-Length: -1\r\n\r\n", 400},
      {"signed length", post + "Content-Length: +2\r\n\r\n{}", 400},
      {"hexadecimal length", post + "Content-Length: 0x2\r\n\r\n{}", 400},
      {"huge length", post + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {"length over the limit", post + "Content-Length: 16777217\r\n\r\n", 413},
      {"other coding", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
      {"disguised coding", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
      {"negative chunk", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
      {"chunk size overflow", post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400},
      {"chunk without CRLF", post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", 400},
      {"chunk over the limit", post + "Transfer-Encoding: chunked\r\n\r\n1000001\r\n", 413},
      {"endless chunk extension", post + "Transfer-Encoding: chunked\r\n\r\n2;" + std::string(80'000, 'x'), 400},
      {"no length", post + "\r\n", 411},
      {"compressed", post + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415},
      {"a form", "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415},
      {"odd expectation", post + "Expect: tea\r\nContent-Length: 2\r\n\r\n{}", 417},
  };
}

std::string fields(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "X-" + std::to_string(i) + ": 1\r\n";
  return text;
}

std::vector<Malformed> malformed_heads() {
  return {
      {"folded header", get + "X-A: 1\r\n 2\r\n\r\n", 400},
      {"bare LF", "GET /livez HTTP/1.1\nHost: x\r\n\r\n", 400},
      {"bare CR", get + "X-A: 1\rX-B: 2\r\n\r\n", 400},
      {"NUL", get + std::string("X-A: \0\r\n\r\n", 10), 400},
      {"no colon", get + "XA\r\n\r\n", 400},
      {"space before the colon", get + "X-A : 1\r\n\r\n", 400},
      {"no host", "GET /livez HTTP/1.1\r\n\r\n", 400},
      {"two hosts", get + "Host: y\r\n\r\n", 400},
      {"two keys", get + "Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n", 400},
      {"two keys of Anthropic's clients", get + "X-Api-Key: a\r\nX-API-Key: a\r\n\r\n", 400},
      {"other protocol", "GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", 400},
      {"relative target", "GET livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"other scheme", "GET ftp://x/livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"star of a GET", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"chunked in HTTP/1.0", "POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"tunnel", "CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"TLS hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15), 400},
      {"TLS hello without a line's end", std::string("\x16\x03\x01\x02\x00\x01", 6), 400},
      {"header of bare LF", "GET /livez HTTP/1.1\nHost: x\n\n", 400},
      {"header of 17 KiB", get + "X-A: " + std::string(17'000, 'x') + "\r\n\r\n", 431},
      {"header without end", get + std::string(20'000, 'x'), 431},
      {"65 fields", get + fields(65) + "\r\n", 400},
  };
}

std::vector<Malformed> wrong_routes() {
  return {
      {"unknown route", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404},
      {"unknown route with a form",
       "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 404},
      {"unknown route without length", "POST /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404},
      {"unknown route below a known one", "GET /v1/models/a/b HTTP/1.1\r\nHost: x\r\n\r\n", 404},
      {"escaped route", "GET /v1%2Fmodels HTTP/1.1\r\nHost: x\r\n\r\n", 404},
      {"wrong method", "DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 405},
      {"unknown method", "BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 405},
  };
}

TEST_F(HttpServerTest, MalformedRequestsGetOneTypedAnswer) {
  std::vector<Malformed> all = malformed_bodies();
  for (const auto& more : {malformed_heads(), wrong_routes()}) all.insert(all.end(), more.begin(), more.end());
  for (const Malformed& test : all) {
    const RawAnswer answer = client().request(test.bytes);
    EXPECT_EQ(answer.status, test.status) << test.what << ": " << answer.body;
    EXPECT_EQ(answer.error_code().find(' '), std::string::npos) << test.what << ": " << answer.body;
  }
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_TRUE(inference_.requests().empty()) << "none of them reached the actors";
}

TEST_F(HttpServerTest, NothingBehindASmuggledLengthIsServed) {
  RawClient client = this->client();
  const RawAnswer first = client.request(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
      "GET /v1/cluster HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(first.status, 400);
  EXPECT_EQ(first.headers.at("connection"), "close");
  EXPECT_EQ(client.receive().status, 0) << "the rest is thrown away";
}

TEST_F(HttpServerTest, KeepAliveServesOneAfterTheOther) {
  RawClient client = this->client();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  client.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.receive().json()["status"], "ok");
  EXPECT_EQ(client.receive().json()["version"], "1.2.3") << "a pipelined request waits for its turn";
  EXPECT_EQ(client.request("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").headers.at("connection"),
            "close");
  EXPECT_TRUE(client.closed_within(1000));
}

TEST_F(HttpServerTest, ChunkedBodiesAndExpectContinueWork) {
  const std::string head = "POST /tokenize HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(
      client()
          .request(head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"pro\r\nb;x=y\r\nmpt\":\"ab\"}\r\n\r\n0\r\n\r\n")
          .status,
      400)
      << "the second chunk is not as long as it says";
  const RawAnswer chunked =
      client().request(head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"pro\r\na;x=y\r\nmpt\":\"ab\"}\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.json()["count"], 2) << chunked.body;
  RawClient client = this->client();
  client.send(head + "Expect: 100-continue\r\nContent-Length: 15\r\n\r\n");
  EXPECT_NE(client.receive_until("100 Continue\r\n\r\n").find("100 Continue"), std::string::npos);
  client.send("{\"prompt\":\"ab\"}");
  EXPECT_NE(client.receive_until("\"count\":2").find("\"count\":2"), std::string::npos);
}

TEST_F(HttpServerTest, OldClientsGetAStreamWithoutChunks) {
  RawClient client = this->client();
  const std::string body = R"({"prompt":"a","stream":true})";
  client.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const std::string answer = client.receive_until("[DONE]");
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
  EXPECT_NE(answer.find("\n\ndata: [DONE]\n\n"), std::string::npos);
  EXPECT_TRUE(client.closed_within(1000));
}

TEST_F(HttpServerTest, SlowHeadersAndBodiesAreCut) {
  RawClient header = client(), body = client(), quiet = client();
  header.send("GET /livez HT");
  body.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_TRUE(header.closed_within(1500));
  EXPECT_TRUE(body.closed_within(1500));
  EXPECT_FALSE(quiet.closed_within(100)) << "an idle connection may wait longer";
  EXPECT_TRUE(quiet.closed_within(4000));
}

TEST_F(HttpServerTest, StalledReaderIsCutAndItsRequestCancelled) {
  inference_.set({.text = std::string(64, 'x'), .tokens_per_event = 64, .endless = true, .context_len = 100'000'000});
  RawClient client(gateway_->port(), 4096);
  client.send(post_bytes("/v1/completions", R"({"prompt":"a","stream":true,"max_tokens":50000000})"));
  ASSERT_TRUE(eventually([&] { return inference_.produced > 0; }));
  EXPECT_TRUE(eventually([&] { return inference_.cancelled == 1; }, 10s));
  // What nobody takes is bounded: kernel buffers, kSseBufferBytesMax and one event; a chunk of 64 tokens is about 300
  // bytes.
  EXPECT_LT(inference_.produced, 64 * 200'000);
  EXPECT_EQ(get("/livez").status, 200);
}

TEST_F(HttpServerTest, RequestIdIsEchoedIfItIsOne) {
  EXPECT_EQ(get("/livez", "X-Request-Id: abc-1\r\n").headers.at("x-request-id"), "abc-1");
  const std::string own = get("/livez", "X-Request-Id: a b<script>\r\n").headers.at("x-request-id");
  EXPECT_TRUE(own.starts_with("req-")) << own;
  EXPECT_NE(get("/livez").headers.at("x-request-id"), own);
}

TEST_F(HttpServerTest, ShutdownLetsRequestsEndAndClosesTheRest) {
  inference_.set({.text = "abcdefghij", .between = 30ms});
  RawClient busy = client(), idle = client();
  EXPECT_EQ(idle.request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  busy.send(post_bytes("/v1/completions", R"({"prompt":"a","stream":true})"));
  ASSERT_TRUE(eventually([&] { return inference_.produced > 0; }));
  std::thread stopping([this] { stop(); });
  EXPECT_TRUE(idle.closed_within(1000));
  EXPECT_EQ(busy.receive().events().back().data, "[DONE]");
  stopping.join();
}

TEST_F(HttpServerTest, ShutdownCutsWhatOutlastsTheDrain) {
  inference_.set({.between = 20ms, .endless = true});
  RawClient busy = client();
  busy.send(post_bytes("/v1/completions", R"({"prompt":"a","stream":true,"max_tokens":4000})"));
  ASSERT_TRUE(eventually([&] { return inference_.produced > 0; }));
  const auto begin = std::chrono::steady_clock::now();
  stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_EQ(inference_.cancelled, 1);
}

class FewConnectionsTest : public GatewayTest {
 protected:
  void SetUp() override {
    options_.http.connections_max = 2;
    start();
  }
};

TEST_F(FewConnectionsTest, OneTooManyIsToldSo) {
  RawClient first = client(), second = client();
  EXPECT_EQ(first.request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  EXPECT_EQ(second.request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  const RawAnswer refused = client().receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  first.close();
  EXPECT_TRUE(eventually([&] { return client().request("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status == 200; }));
}

TEST_F(HttpServerTest, PortInUseAndForeignInterfacesAreRefused) {
  GatewayOptions taken = options_;
  taken.http.listen.port = gateway_->port();
  Gateway second(io_.get_executor(), clock_, inference_, nullptr, codec_, metrics_, taken);
  const Result<void> listening = second.listen();
  ASSERT_FALSE(listening);
  EXPECT_EQ(listening.error().code, ErrorCode::kAddressInUse);
  GatewayOptions everywhere = options_;
  everywhere.http.listen = {"0.0.0.0", 0};
  Gateway third(io_.get_executor(), clock_, inference_, nullptr, codec_, metrics_, everywhere);
  EXPECT_EQ(third.listen().error().code, ErrorCode::kInvalidArgument);
}

class ApiKeysTest : public GatewayTest {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "/keys-" + std::to_string(getpid());
    std::ofstream(path_) << "# team a\nsecret-1\n\nsecret-2\r\n";
    options_.api_keys_file = path_;
    start();
  }
  void TearDown() override {
    stop();
    std::filesystem::remove(path_);
  }
  std::string path_;
};

TEST_F(ApiKeysTest, EverythingButProbesNeedsAKey) {
  for (const char* path :
       {"/v1/models", "/v1/cluster", "/metrics", "/version", "/openapi.json", "/nothing", "/v1/jobs"}) {
    const RawAnswer answer = get(path);
    EXPECT_EQ(answer.status, 401) << path;
    EXPECT_EQ(answer.error_code(), "unauthorized") << path;
  }
  for (const char* header :
       {"Authorization: Bearer secret\r\n", "Authorization: Bearer secret-11\r\n", "Authorization: secret-1\r\n",
        "Authorization: Bearer \r\n", "Authorization: Basic secret-1\r\n"})
    EXPECT_EQ(get("/v1/models", header).status, 401) << header;
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer secret-1\r\n").status, 200);
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer secret-2\r\n").status, 200);
  for (const char* path : {"/livez", "/readyz", "/health"}) EXPECT_EQ(get(path).status, 200) << path;
  EXPECT_FALSE(get("/readyz?verbose").json().contains("cluster"));
  EXPECT_TRUE(get("/readyz?verbose", "Authorization: Bearer secret-1\r\n").json().contains("cluster"));
}

TEST(ApiKeys, BlanksAroundAKeyAreNoPartOfIt) {
  const std::string path = ::testing::TempDir() + "/blanks-" + std::to_string(getpid());
  std::ofstream(path) << " key-one\nkey-two \t\r\n  # a comment\n";
  const auto keys = ApiKeys::load(path);
  ASSERT_TRUE(keys);
  EXPECT_TRUE(keys->accepts("Bearer key-one"));
  EXPECT_TRUE(keys->accepts("Bearer key-two"));
  EXPECT_FALSE(keys->accepts("Bearer # a comment"));
  std::filesystem::remove(path);
}

TEST(ApiKeys, FilesWithoutKeysAreRefused) {
  EXPECT_EQ(ApiKeys::load("/nonexistent/keys").error().code, ErrorCode::kNotFound);
  const std::string path = ::testing::TempDir() + "/no-keys-" + std::to_string(getpid());
  std::ofstream(path) << "# nothing\n\n";
  EXPECT_EQ(ApiKeys::load(path).error().code, ErrorCode::kInvalidConfig);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace runahead
