// Anthropic's Messages API over a scripted InferenceService, as its clients see it.
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kAsk = R"({"model":"toy","max_tokens":20,"messages":[{"role":"user","content":"abc"}]})";

json asked(json changes) {
  json body = json::parse(kAsk);
  body.merge_patch(changes);
  return body;
}

TEST_F(GatewayTest, AMessageIsAChatInAnthropicsShape) {
  const RawAnswer answer = post("/v1/messages", kAsk);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.json();
  EXPECT_TRUE(body["id"].get<std::string>().starts_with("msg_"));
  EXPECT_EQ(body["type"], "message");
  EXPECT_EQ(body["role"], "assistant");
  EXPECT_EQ(body["model"], "toy");
  EXPECT_EQ(body["content"], json::parse(R"([{"type":"text","text":"Hello"}])"));
  EXPECT_EQ(body["stop_reason"], "end_turn");
  EXPECT_EQ(body["stop_sequence"], nullptr);
  const int64_t prompt = std::ssize(std::string("<user>abc<assistant>"));
  EXPECT_EQ(body["usage"], (json{{"input_tokens", prompt},
                                 {"cache_read_input_tokens", 0},
                                 {"cache_creation_input_tokens", 0},
                                 {"output_tokens", 5}}));
  EXPECT_NE(answer.headers.at("server-timing").find("ttft"), std::string::npos);
  EXPECT_TRUE(eventually([&] { return !metrics_.seen().empty(); }));
  EXPECT_EQ(metrics_.seen(), std::vector<std::string>{"messages:ok"});
}

TEST_F(GatewayTest, AMessagesFieldsReachTheActors) {
  const json body = asked({{"system", json::parse(R"([{"type":"text","text":"Be ","cache_control":{"type":"ephemeral"}},
                                                      {"type":"text","text":"brief."}])")},
                           {"temperature", 0},
                           {"top_k", 5},
                           {"top_p", 0.5},
                           {"seed", 7},
                           {"cache_salt", "tenant"},
                           {"metadata", {{"user_id", "u"}}},
                           {"thinking", {{"type", "disabled"}}},
                           {"tools", json::array()},
                           {"runahead", {{"strategy", "single"}}}});
  ASSERT_EQ(post("/v1/messages", body.dump()).status, 200);
  const InferenceRequest request = inference_.requests().at(0);
  EXPECT_EQ(codec_.decode(request.prompt), "<system>Be brief.<user>abc<assistant>");
  EXPECT_EQ(request.max_new_tokens, 20);
  EXPECT_EQ(request.sampling.temperature, 0.0f);
  EXPECT_EQ(request.sampling.top_k, 5);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.seed, 7u);
  EXPECT_EQ(request.cache_salt, "tenant");
  EXPECT_EQ(request.strategy, Strategy::kSingle);
  EXPECT_TRUE(request.external_id.starts_with("msg_"));
}

TEST_F(GatewayTest, AMessageSaysWhatEndedIt) {
  inference_.set({.text = "one, two, three"});
  json body = post("/v1/messages", asked({{"stop_sequences", {"three", ", t"}}}).dump()).json();
  EXPECT_EQ(body["content"][0]["text"], "one");
  EXPECT_EQ(body["stop_reason"], "stop_sequence");
  EXPECT_EQ(body["stop_sequence"], ", t");
  body = post("/v1/messages", asked({{"max_tokens", 3}}).dump()).json();
  EXPECT_EQ(body["stop_reason"], "max_tokens");
  EXPECT_EQ(body["usage"]["output_tokens"], 3);
}

TEST_F(GatewayTest, AMessageStreamsAsNamedEvents) {
  const RawAnswer answer = post("/v1/messages", asked({{"stream", true}}).dump());
  ASSERT_EQ(answer.status, 200);
  const auto events = named_events(answer.body);
  ASSERT_GE(events.size(), 6u) << answer.body;
  std::string text;
  std::vector<std::string> names;
  for (const auto& [name, data] : events) {
    EXPECT_EQ(data["type"], name);
    if (name == "content_block_delta") text += data["delta"]["text"].get<std::string>();
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"message_start", "content_block_start", "content_block_delta",
                                             "content_block_stop", "message_delta", "message_stop"}));
  EXPECT_EQ(text, "Hello");
  EXPECT_EQ(events.front().data["message"]["content"], json::array());
  const json& end = events[events.size() - 2].data;
  EXPECT_EQ(end["delta"], json::parse(R"({"stop_reason":"end_turn","stop_sequence":null})"));
  EXPECT_EQ(end["usage"]["output_tokens"], 5);
}

TEST_F(GatewayTest, AnEmptyMessageStreamsWholeToo) {
  inference_.set({.text = ""});
  const auto events = named_events(post("/v1/messages", asked({{"stream", true}}).dump()).body);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events.front().name, "message_start");
  EXPECT_EQ(events.back().name, "message_stop");
}

TEST_F(GatewayTest, AMessageThatFailsLaterEndsWithAnErrorEvent) {
  inference_.set({.fail_at_end = Error{ErrorCode::kWorkerLost, "gone", ""}});
  const auto events = named_events(post("/v1/messages", asked({{"stream", true}}).dump()).body);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back().name, "error");
  EXPECT_EQ(events.back().data["error"], json::parse(R"({"type":"overloaded_error","message":"gone"})"));
}

TEST_F(GatewayTest, MessagesThatAreNotUnderstoodAreRefusedByName) {
  const std::vector<std::pair<json, std::string>> bad = {
      {{{"max_tokens", nullptr}}, "max_tokens"},
      {{{"max_tokens", 0}}, "max_tokens"},
      {{{"messages", json::array()}}, "messages"},
      {{{"messages", {{{"role", "system"}, {"content", "x"}}}}}, "messages[0].role"},
      {{{"messages", {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "y"}}}}}, "messages"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image"}}}}}}}}, "content"},
      {{{"messages", {7}}}, "messages[0]"},
      {{{"temperature", 1.5}}, "temperature"},
      {{{"stop_sequences", {""}}}, "stop_sequences"},
      {{{"stop_sequences", "x"}}, "stop_sequences"},
      {{{"tools", {{{"name", "f"}}}}}, "tools"},
      {{{"tool_choice", {{"type", "any"}}}}, "tool_choice"},
      {{{"tool_choice", {{"type", 5}}}}, "tool_choice"},
      {{{"messages", {{{"role", 5}, {"content", "x"}}}}}, "messages[0].role"},
      {{{"thinking", {{"type", 5}}}}, "type"},
      {{{"thinking", {{"type", "enabled"}}}}, "thinking"},
      {{{"model", "other"}}, "model"},
      {{{"frobnicate", 1}}, "frobnicate"},
  };
  for (const auto& [change, field] : bad) {
    const RawAnswer answer = post("/v1/messages", asked(change).dump());
    EXPECT_EQ(answer.status, field == "model" ? 404 : 400) << change;
    EXPECT_EQ(answer.json()["type"], "error") << answer.body;
    EXPECT_NE(answer.json()["error"]["message"].get<std::string>().find(field), std::string::npos) << answer.body;
  }
  EXPECT_EQ(post("/v1/messages", "{").json()["error"]["type"], "invalid_request_error");
  inference_.set({.refuse = Error{ErrorCode::kOverloaded, "full", "", 3}});
  const RawAnswer refused = post("/v1/messages", kAsk);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.json()["error"]["type"], "rate_limit_error");
  EXPECT_EQ(refused.headers.at("retry-after"), "3");
}

TEST_F(GatewayTest, AMessagesTokensAreCountedWithoutAnAnswer) {
  const RawAnswer answer =
      post("/v1/messages/count_tokens", R"({"model":"toy","system":"S","messages":[{"role":"user","content":"abc"}]})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json(), (json{{"input_tokens", std::string("<system>S<user>abc<assistant>").size()}}));
  EXPECT_TRUE(inference_.requests().empty());
  EXPECT_EQ(post("/v1/messages/count_tokens", "{}").json()["type"], "error");
  inference_.set({.context_len = 8});
  EXPECT_EQ(post("/v1/messages/count_tokens", R"({"messages":[{"role":"user","content":"longer than that"}]})").status,
            200);
}

class KeyedMessages : public GatewayTest {
 protected:
  void SetUp() override {
    options_.api_keys_file = std::filesystem::path(::testing::TempDir()) / "messages_test_keys";
    std::ofstream(options_.api_keys_file) << "one\ntwo\n";
    start();
  }
};

TEST_F(KeyedMessages, AKeyComesInEitherHeader) {
  EXPECT_EQ(post("/v1/messages", kAsk).status, 401);
  EXPECT_EQ(post("/v1/messages", kAsk, "x-api-key: three\r\n").status, 401);
  EXPECT_EQ(post("/v1/messages", kAsk, "x-api-key: one\r\n").status, 200);
  EXPECT_EQ(post("/v1/messages", kAsk, "Authorization: Bearer one\r\n").status, 200);
  EXPECT_EQ(post("/v1/messages", kAsk, "x-api-key: two\r\nAuthorization: Basic cHJveHk=\r\n").status, 200)
      << "a proxy's own";
  EXPECT_EQ(post("/v1/messages", kAsk, "x-api-key: three\r\nAuthorization: Bearer one\r\n").status, 200);
}

// Pages of the prefix cache are shared within a key, whatever salt is given.
TEST_F(KeyedMessages, UnlikeKeysHaveUnlikeSalts) {
  const std::string salted = asked({{"cache_salt", "s"}}).dump();
  for (const char* key : {"one", "two"})
    for (const std::string& body : {std::string(kAsk), salted})
      for (int twice = 0; twice < 2; ++twice)
        EXPECT_EQ(post("/v1/messages", body, "x-api-key: " + std::string(key) + "\r\n").status, 200);
  std::vector<std::string> salts;
  for (const InferenceRequest& request : inference_.requests()) salts.push_back(request.cache_salt);
  ASSERT_EQ(salts.size(), 8u);
  for (size_t i = 0; i < 8; i += 2) EXPECT_EQ(salts[i], salts[i + 1]);
  EXPECT_EQ(std::set<std::string>(salts.begin(), salts.end()).size(), 4u);
}

}  // namespace
}  // namespace runahead
