// Chats and messages with tools over a scripted InferenceService: what clients see of calls.
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;

class ToolAnswers : public GatewayTest {
 protected:
  const TextCodec& codec() const override { return tool_codec_; }
  ToolCodec tool_codec_;
};

constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"look","description":"d","strict":null,"parameters":{"type":"object",)"
    R"("properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}}])";
constexpr const char* kCalls =
    "I look. <tool_call>{\"name\": \"look\", \"arguments\": {\"z\": \"\xC3\xA9\"}}</tool_call>\n"
    "<tool_call>{\"name\": \"look\", \"arguments\": {}}</tool_call>";

std::string chat(const std::string& more) {
  return std::string(R"({"messages":[{"role":"user","content":"abc"}],)") + kTools + more + "}";
}

std::vector<json> chunks_of(const std::string& body) {
  std::vector<json> chunks;
  for (size_t at = 0; (at = body.find("data: {", at)) != std::string::npos;) {
    const size_t end = body.find('\n', at);
    chunks.push_back(json::parse(body.substr(at + 6, end - at - 6)));
    at = end;
  }
  return chunks;
}

TEST_F(ToolAnswers, AChatHasItsCallsApartFromItsText) {
  inference_.set({.text = kCalls, .tokens_per_event = 7});
  const json choice = post("/v1/chat/completions", chat("")).json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "I look.");
  const json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0]["type"], "function");
  EXPECT_EQ(calls[0]["function"], (json{{"name", "look"}, {"arguments", "{\"z\": \"\xC3\xA9\"}"}}));
  EXPECT_NE(calls[0]["id"], calls[1]["id"]);
  EXPECT_TRUE(calls[0]["id"].get<std::string>().starts_with("call_"));
  EXPECT_EQ(inference_.requests()[0].sampling.grammar, "");
  const std::string prompt = tool_codec_.decode(inference_.requests()[0].prompt);
  EXPECT_EQ(prompt,
            R"(<tools>[{"type":"function","function":{"name":"look","description":"d","parameters":)"
            R"({"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}}]<user>abc<assistant>)");
}

TEST_F(ToolAnswers, AStreamHasTheSameCallsNameFirst) {
  inference_.set({.text = kCalls});
  const json whole = post("/v1/chat/completions", chat("")).json()["choices"][0]["message"];
  const std::vector<json> chunks =
      chunks_of(post("/v1/chat/completions", chat(R"(,"stream":true,"logprobs":true)")).body);
  std::string content;
  std::vector<json> calls;
  size_t tokens = 0;
  for (const json& chunk : chunks) {
    const json& choice = chunk["choices"][0];
    content += choice["delta"].value("content", "");
    if (choice["logprobs"].is_object()) tokens += choice["logprobs"]["content"].size();
    for (const json& call : choice["delta"].value("tool_calls", json::array())) {
      const auto index = call["index"].get<size_t>();
      if (index == calls.size()) {
        EXPECT_EQ(call["function"]["arguments"], "") << "the name comes first";
        calls.push_back(call);
        continue;
      }
      ASSERT_EQ(index + 1, calls.size());
      EXPECT_FALSE(call.contains("id") || call["function"].contains("name"));
      json& arguments = calls.back()["function"]["arguments"];
      arguments = arguments.get<std::string>() + call["function"]["arguments"].get<std::string>();
    }
  }
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(content, whole["content"].get<std::string>());
  EXPECT_EQ(tokens, std::string(kCalls).size()) << "no log-probability is lost";
  ASSERT_EQ(calls.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(calls[i]["function"], whole["tool_calls"][i]["function"]);
}

TEST_F(ToolAnswers, WithoutToolsTheSameTextIsText) {
  inference_.set({.text = kCalls});
  for (const std::string& body :
       {chat(R"(,"tool_choice":"none")"), std::string(R"({"messages":[{"role":"user","content":"a"}]})")}) {
    const json choice = post("/v1/chat/completions", body).json()["choices"][0];
    EXPECT_EQ(choice["message"]["content"], kCalls);
    EXPECT_EQ(choice["finish_reason"], "stop");
    EXPECT_FALSE(choice["message"].contains("tool_calls"));
  }
  EXPECT_EQ(tool_codec_.decode(inference_.requests()[0].prompt), "<user>abc<assistant>") << "none are shown";
}

TEST_F(ToolAnswers, ChoicesThatMustCallHaveAGrammar) {
  inference_.set({.text = "<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>"});
  const auto grammar_of = [&](const std::string& more) {
    const RawAnswer answer = post("/v1/chat/completions", chat(more));
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.json()["choices"][0]["finish_reason"], "tool_calls");
    return inference_.requests().back().sampling.grammar;
  };
  EXPECT_TRUE(grammar_of(R"(,"tool_choice":"required")").starts_with("{\"list\""));
  EXPECT_TRUE(grammar_of(R"(,"tool_choice":"required","parallel_tool_calls":false)").starts_with("{\"sequence\""));
  EXPECT_TRUE(
      grammar_of(R"(,"tool_choice":{"type":"function","function":{"name":"look"}})").starts_with("{\"sequence\""));
  EXPECT_TRUE(grammar_of(R"(,"parallel_tool_calls":false)").starts_with("{\"text_with\""));
  EXPECT_TRUE(grammar_of(R"(,"response_format":{"type":"json_object"})").starts_with("{\"either\""));
  EXPECT_EQ(grammar_of(R"(,"tool_choice":"required","response_format":{"type":"json_object"})"),
            grammar_of(R"(,"tool_choice":"required")"));
  EXPECT_NE(grammar_of(R"(,"tool_choice":"required")").find(R"("properties":{"z":{"type":"string"},"a")"),
            std::string::npos)
      << "fields keep their order";
}

TEST_F(ToolAnswers, MessagesHaveBlocksOfTextAndCalls) {
  inference_.set({.text = kCalls});
  const std::string body = R"({"max_tokens":200,"messages":[{"role":"user","content":"a"},
      {"role":"assistant","content":[{"type":"text","text":"T"},
          {"type":"tool_use","id":"t1","name":"look","input":{"z":1,"a":2}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"R"}],"is_error":false},
                                {"type":"text","text":"and?"}]}],
      "tools":[{"name":"look","description":"d","input_schema":{"type":"object","properties":{"z":{},"a":{}}}}])";
  const json answer = post("/v1/messages", body + "}").json();
  EXPECT_EQ(answer["stop_reason"], "tool_use") << answer;
  ASSERT_EQ(answer["content"].size(), 3u) << answer;
  EXPECT_EQ(answer["content"][0], json::parse(R"({"type":"text","text":"I look."})"));
  EXPECT_EQ(answer["content"][1]["input"], json::parse("{\"z\":\"\xC3\xA9\"}"));
  EXPECT_TRUE(answer["content"][1]["id"].get<std::string>().starts_with("toolu_"));
  EXPECT_EQ(answer["content"][2]["input"], json::object());
  const std::string prompt = tool_codec_.decode(inference_.requests()[0].prompt);
  EXPECT_EQ(prompt,
            R"(<tools>[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object",)"
            R"("properties":{"z":{},"a":{}}}}}]<user>a<assistant>T[{"id":"t1","type":"function","function":)"
            R"({"name":"look","arguments":{"z":1,"a":2}}}]<tool>R(look)<user>and?<assistant>)");
  EXPECT_EQ(post("/v1/messages/count_tokens", body + "}").json()["input_tokens"], prompt.size());
  const std::vector<json> events = chunks_of(post("/v1/messages", body + R"(,"stream":true})").body);
  std::vector<std::string> types;
  std::string input;
  for (const json& event : events) {
    types.push_back(event["type"]);
    if (event.contains("delta") && event.value("index", -1) == 1) input += event["delta"].value("partial_json", "");
  }
  EXPECT_EQ(input, "{\"z\": \"\xC3\xA9\"}");
  EXPECT_EQ(std::ranges::count(types, "content_block_start"), 3);
  EXPECT_EQ(std::ranges::count(types, "content_block_stop"), 3);
  EXPECT_EQ(events[events.size() - 2]["delta"]["stop_reason"], "tool_use");
}

TEST_F(ToolAnswers, MessagesRefuseByName) {
  const auto refused = [&](const std::string& more) {
    const RawAnswer answer =
        post("/v1/messages", R"({"max_tokens":9,"messages":[{"role":"user","content":"a"}],)" + more + "}");
    EXPECT_EQ(answer.status, 400) << more;
    return answer.json()["error"]["message"].get<std::string>();
  };
  EXPECT_NE(refused(R"("tools":[{"name":"f"}])").find("tools[0].input_schema"), std::string::npos);
  EXPECT_NE(refused(R"("tools":[{"type":"bash_20250124","name":"bash"}])").find("tools[0].type"), std::string::npos);
  EXPECT_NE(refused(R"("tool_choice":{"type":"tool"})").find("tool_choice.name"), std::string::npos);
  EXPECT_NE(refused(R"("tool_choice":{"type":"any"})").find("tool_choice"), std::string::npos);
}

}  // namespace
}  // namespace runahead
