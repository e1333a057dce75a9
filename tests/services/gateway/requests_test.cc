// /v1/requests over a scripted InferenceService: what is in work, what has ended, and its end by DELETE.
#include <filesystem>
#include <fstream>

#include "base/limits.h"
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class RequestsTest : public GatewayTest {
 protected:
  json rows(const std::string& headers = "") { return get("/v1/requests", headers).json()["data"]; }
  RawAnswer cancel(const std::string& id, const std::string& headers = "") {
    return client().request("DELETE /v1/requests/" + id + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n");
  }
  // A stream that does not end by itself, with its first token.
  RawClient endless() {
    inference_.set({.between = 2ms, .endless = true, .progress = true});
    RawClient stream = client();
    stream.send(post_bytes("/v1/completions", R"({"prompt":"SECRET","max_tokens":4000,"stream":true})"));
    EXPECT_NE(stream.receive_until("\"text\":\"H\"").find("\"text\":\"H\""), std::string::npos);
    return stream;
  }
};

TEST_F(RequestsTest, NobodyHasAskedYet) { EXPECT_EQ(rows(), json::array()); }

TEST_F(RequestsTest, WhatEndedHasItsNumbersAndTheReportOfItsUsage) {
  const json answer = post("/v1/completions", R"({"prompt":"SECRET","max_tokens":20})").json();
  const json all = rows();
  ASSERT_EQ(all.size(), 1u);
  const json& row = all[0];
  EXPECT_EQ(row["id"], answer["id"]);
  EXPECT_EQ(row["endpoint"], "completions");
  EXPECT_EQ(row["model"], "toy");
  EXPECT_EQ(row["status"], "succeeded");
  EXPECT_EQ(row["prompt_tokens"], 6);
  EXPECT_EQ(row["completion_tokens"], 5);
  EXPECT_EQ(row["runahead"], answer["usage"]["runahead"]);
  EXPECT_EQ(row["error"], nullptr);
  EXPECT_GE(row["elapsed_seconds"], row["first_token_seconds"]);
  json one = get("/v1/requests/" + row["id"].get<std::string>()).json();
  EXPECT_EQ(one, row);
}

TEST_F(RequestsTest, NoTextOfAPromptOrAnAnswerIsShown) {
  inference_.set({.text = "HIDDEN"});
  ASSERT_EQ(post("/v1/completions", R"({"prompt":"SECRET","echo":true,"stop":["STOPPER"],"user":"WHO"})").status, 200);
  ASSERT_EQ(post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"SECRET"}]})").status, 200);
  ASSERT_EQ(
      post("/v1/messages", R"({"model":"toy","max_tokens":9,"messages":[{"role":"user","content":"SECRET"}]})").status,
      200);
  const std::string body = get("/v1/requests").body;
  for (const char* text : {"SECRET", "HIDDEN", "STOPPER", "WHO"}) EXPECT_EQ(body.find(text), std::string::npos) << text;
  EXPECT_EQ(rows()[0]["endpoint"], "messages") << "the newest comes first";
  EXPECT_EQ(rows()[1]["endpoint"], "chat");
  EXPECT_TRUE(rows()[0]["id"].get<std::string>().starts_with("msg_"));
  EXPECT_EQ(rows()[0]["cached_tokens"], 0);
}

TEST_F(RequestsTest, WhatIsInWorkShowsHowFarItIs) {
  RawClient stream = endless();
  const json row = rows().at(0);
  EXPECT_EQ(row["status"], "decode");
  EXPECT_TRUE(row["stream"]);
  EXPECT_GE(row["completion_tokens"], 1);
  EXPECT_EQ(row["prefill"]["fraction"], 0.5);
  EXPECT_EQ(row["prefill"]["workers"][0], json({{"rank", 0}, {"fraction", 1.0}}));
  EXPECT_GT(row["first_token_seconds"], 0.0);
  EXPECT_EQ(row["runahead"], nullptr);
  stream.close();
  EXPECT_TRUE(eventually([&] { return rows().at(0)["status"] == "cancelled"; }));
}

TEST_F(RequestsTest, BeforeTheFirstTokenItWaitsOrIsInPrefill) {
  inference_.set({.before_first = 10s, .progress = true});
  RawClient stream = client();
  stream.send(post_bytes("/v1/completions", R"({"prompt":"a"})"));
  EXPECT_TRUE(eventually([&] { return rows().size() == 1 && rows()[0]["status"] == "prefill"; }));
  inference_.set({.before_first = 10s});
  RawClient second = client();
  second.send(post_bytes("/v1/completions", R"({"prompt":"a"})"));
  EXPECT_TRUE(eventually([&] { return rows().size() == 2 && rows()[0]["status"] == "waiting"; }));
}

TEST_F(RequestsTest, DeleteEndsAStreamAndAWholeAnswer) {
  RawClient stream = endless();
  const std::string id = rows().at(0)["id"];
  const RawAnswer cancelled = cancel(id);
  EXPECT_EQ(cancelled.status, 200);
  EXPECT_EQ(cancelled.json()["status"], "cancelled");
  EXPECT_NE(stream.receive_until("event: error").find("event: error"), std::string::npos);
  EXPECT_TRUE(eventually([&] { return inference_.cancelled == 1; }));
  EXPECT_TRUE(eventually([&] { return rows().at(0)["error"]["code"] == "cancelled"; }));

  inference_.set({.before_first = 10s});
  RawClient whole = client();
  whole.send(post_bytes("/v1/completions", R"({"prompt":"a"})"));
  ASSERT_TRUE(eventually([&] { return rows().size() == 2; }));
  EXPECT_EQ(cancel(rows().at(0)["id"]).status, 200);
  EXPECT_EQ(whole.receive().error_code(), "cancelled");
}

TEST_F(RequestsTest, WhatHasEndedIsNotCancelledAnyMore) {
  const std::string id = post("/v1/completions", R"({"prompt":"a"})").json()["id"];
  EXPECT_EQ(cancel(id).json()["status"], "succeeded");
  EXPECT_EQ(inference_.cancelled, 0);
}

TEST_F(RequestsTest, AnUnknownIdIsNotFound) {
  for (const RawAnswer& answer : {cancel("cmpl-0"), get("/v1/requests/cmpl-0")}) {
    EXPECT_EQ(answer.status, 404);
    EXPECT_EQ(answer.error_code(), "not_found");
  }
}

TEST_F(RequestsTest, FailuresSayWhyAndRefusalsAreNotListed) {
  inference_.set({.fail_at_end = Error{ErrorCode::kUnavailable, "all workers are gone", ""}});
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 503);
  EXPECT_TRUE(eventually([&] { return rows().at(0)["status"] == "failed"; }));
  EXPECT_EQ(rows().at(0)["error"]["message"], "all workers are gone");
  inference_.set({.refuse = Error{ErrorCode::kOverloaded, "full", ""}});
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 429);
  inference_.set({.no_memory = true});
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 503);
  EXPECT_EQ(rows().size(), 1u);
}

TEST_F(RequestsTest, TheLastHundredAreKept) {
  std::string first;
  const size_t more = limits::kEndedRequestsMax + 5;
  for (size_t i = 0; i < more; ++i) {
    const json answer = post("/v1/completions", R"({"prompt":"a","max_tokens":1})").json();
    if (i == 0) first = answer["id"];
  }
  EXPECT_TRUE(eventually([&] { return rows().size() == limits::kEndedRequestsMax; }));
  EXPECT_EQ(get("/v1/requests/" + first).status, 404) << "the oldest has gone";
}

class RequestsOfKeys : public RequestsTest {
 protected:
  void SetUp() override {
    keys_ = std::filesystem::path(::testing::TempDir()) / "requests_test_keys";
    std::ofstream(keys_) << "alice\nbob\n";
    options_.api_keys_file = keys_;
    start();
  }
  std::filesystem::path keys_;
};

TEST_F(RequestsOfKeys, EachKeySeesAndEndsItsOwn) {
  const std::string alice = "Authorization: Bearer alice\r\n", bob = "Authorization: Bearer bob\r\n";
  EXPECT_EQ(get("/v1/requests").status, 401);
  EXPECT_EQ(cancel("cmpl-0").status, 401);
  inference_.set({.before_first = 10s});
  RawClient stream = client();
  stream.send(post_bytes("/v1/completions", R"({"prompt":"a"})", alice));
  ASSERT_TRUE(eventually([&] { return rows(alice).size() == 1; }));
  const std::string id = rows(alice).at(0)["id"];
  EXPECT_EQ(rows(bob), json::array());
  EXPECT_EQ(cancel(id, bob).status, 404);
  EXPECT_EQ(get("/v1/requests/" + id, bob).status, 404);
  EXPECT_EQ(inference_.cancelled, 0);
  EXPECT_EQ(cancel(id, alice).status, 200);
}

}  // namespace
}  // namespace runahead
