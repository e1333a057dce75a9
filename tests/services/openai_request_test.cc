// Every field of a request has its type and its bounds, and an error names it.
#include "services/gateway/openai_request.h"

#include <gtest/gtest.h>

#include "tests/services/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;

const ServedModel kModel{"toy", {"small"}, kToyVocab, 4096, 1024};

Result<GenerationRequest> parse(Endpoint endpoint, const std::string& fields) {
  const std::string must = endpoint == Endpoint::kChat ? R"("messages":[{"role":"user","content":"a"}])" : R"("prompt":"a")";
  Result<json> body = parse_json_object("{" + must + (fields.empty() ? "" : ",") + fields + "}");
  if (!body) return std::unexpected(body.error());
  return parse_generation(endpoint, *body, kModel);
}

struct Refused {
  Endpoint endpoint;
  const char* fields;
  const char* param;
  ErrorCode code = ErrorCode::kInvalidArgument;
};

constexpr Endpoint kC = Endpoint::kCompletions, kT = Endpoint::kChat;
constexpr ErrorCode kNot = ErrorCode::kUnsupported;

const Refused kRefused[] = {
    {kC, R"("temperature":-0.1)", "temperature"},
    {kC, R"("temperature":2.1)", "temperature"},
    {kC, R"("temperature":"1")", "temperature"},
    {kC, R"("temperature":[])", "temperature"},
    {kC, R"("top_p":0)", "top_p"},
    {kC, R"("top_p":1.5)", "top_p"},
    {kC, R"("top_k":-2)", "top_k"},
    {kC, R"("top_k":1.5)", "top_k"},
    {kC, R"("min_p":2)", "min_p"},
    {kC, R"("n":0)", "n"},
    {kC, R"("n":9)", "n"},
    {kC, R"("n":1000000)", "n"},
    {kC, R"("n":true)", "n"},
    {kC, R"("max_tokens":0)", "max_tokens"},
    {kC, R"("max_tokens":-5)", "max_tokens"},
    {kC, R"("max_tokens":99999999999)", "max_tokens"},
    {kC, R"("max_tokens":18446744073709551615)", "max_tokens"},
    {kC, R"("presence_penalty":-2.5)", "presence_penalty"},
    {kC, R"("frequency_penalty":3)", "frequency_penalty"},
    {kC, R"("repetition_penalty":0)", "repetition_penalty"},
    {kC, R"("logprobs":21)", "logprobs"},
    {kC, R"("logprobs":true)", "logprobs"},
    {kC, R"("logprobs":1,"echo":true)", "logprobs", kNot},
    {kC, R"("logit_bias":{"x":1})", "logit_bias"},
    {kC, R"("logit_bias":{"257":1})", "logit_bias"},
    {kC, R"("logit_bias":{"1":101})", "logit_bias"},
    {kC, R"("logit_bias":[1])", "logit_bias"},
    {kC, R"("stop":["a","b","c","d","e"])", "stop"},
    {kC, R"("stop":"")", "stop"},
    {kC, R"("stop":[1])", "stop"},
    {kC, R"("stop":5)", "stop"},
    {kC, R"("stop_token_ids":[-1])", "stop_token_ids[0]"},
    {kC, R"("stop_token_ids":[1,257])", "stop_token_ids[1]"},
    {kC, R"("seed":1.5)", "seed"},
    {kC, R"("seed":"a")", "seed"},
    {kC, R"("stream":1)", "stream"},
    {kC, R"("stream_options":{"include_usage":true})", "stream_options"},
    {kC, R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
    {kC, R"("stream":true,"stream_options":{"other":1})", "stream_options.other", kNot},
    {kC, R"("suffix":"x")", "suffix", kNot},
    {kC, R"("best_of":2)", "best_of", kNot},
    {kC, R"("min_tokens":2)", "min_tokens", kNot},
    {kC, R"("unknown_thing":2)", "unknown_thing", kNot},
    {kC, R"("messages":[])", "messages", kNot},
    {kC, R"("model":"gpt-4")", "model", ErrorCode::kNotFound},
    {kC, R"("runahead":{"strategy":"magic"})", "runahead.strategy"},
    {kC, R"("runahead":{"strategy":"searched"})", "runahead.strategy", kNot},
    {kC, R"("runahead":{"cuts":[0]})", "runahead.cuts[0]"},
    {kC, R"("runahead":{"cuts":64})", "runahead.cuts"},
    {kC, R"("runahead":{"strategy":"single","cuts":[64]})", "runahead.cuts"},
    {kC, R"("runahead":{"workers":0})", "runahead.workers"},
    {kC, R"("runahead":{"other":0})", "runahead.other", kNot},
    {kT, R"("tools":[{"type":"function"}])", "tools", kNot},
    {kT, R"("tool_choice":"required")", "tool_choice", kNot},
    {kT, R"("response_format":{"type":"json_object"})", "response_format.type", kNot},
    {kT, R"("top_logprobs":3)", "top_logprobs"},
    {kT, R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
    {kT, R"("logprobs":5)", "logprobs"},
    {kT, R"("modalities":["audio"])", "modalities", kNot},
    {kT, R"("prompt":"a")", "prompt", kNot},
    {kT, R"("max_completion_tokens":0)", "max_completion_tokens"},
};

TEST(OpenAiRequest, RefusesWithTheNameOfTheField) {
  for (const Refused& test : kRefused) {
    const auto parsed = parse(test.endpoint, test.fields);
    ASSERT_FALSE(parsed) << test.fields;
    EXPECT_EQ(parsed.error().param, test.param) << test.fields << ": " << parsed.error().message;
    EXPECT_EQ(name(parsed.error().code), name(test.code)) << test.fields << ": " << parsed.error().message;
  }
}

TEST(OpenAiRequest, AcceptsWhatOpenAiKnowsAndNulls) {
  const char* accepted[] = {
      R"("user":"u","metadata":{"a":"b"},"store":false,"service_tier":"auto","safety_identifier":"x")",
      R"("temperature":null,"n":null,"stop":null,"seed":null,"logit_bias":null,"max_tokens":null,"stream":null)",
      R"("temperature":2,"top_p":1,"top_k":-1,"n":8,"seed":-5)",
      R"("model":"toy")",
      R"("model":"small")",
  };
  for (const char* fields : accepted)
    for (const Endpoint endpoint : {kC, kT}) {
      const auto parsed = parse(endpoint, fields);
      EXPECT_TRUE(parsed) << fields << ": " << parsed.error().message;
    }
  const auto chat = parse(kT, R"("tools":[],"tool_choice":"auto","parallel_tool_calls":true,"response_format":{"type":"text"},
      "modalities":["text"],"max_tokens":5,"max_completion_tokens":6)");
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(chat->max_tokens, 6);
}

TEST(OpenAiRequest, PromptsOfEveryForm) {
  const auto prompts = [](const std::string& prompt) {
    const auto parsed = parse_generation(kC, json::parse("{\"prompt\":" + prompt + "}"), kModel);
    return parsed ? std::to_string(parsed->prompts.size()) : parsed.error().param + ": " + parsed.error().message;
  };
  EXPECT_EQ(prompts(R"("a")"), "1");
  EXPECT_EQ(prompts(R"(["a"])"), "1");
  EXPECT_EQ(prompts(R"(["a","b"])"), "2");
  EXPECT_EQ(prompts("[1,2]"), "1");
  EXPECT_EQ(prompts("[[1],[2,3]]"), "2");
  EXPECT_EQ(prompts(R"(["a",[2,3]])"), "2");
  for (const char* bad : {"[]", "5", "null", "{}", "[[]]", "[1,\"a\"]", "[[1],2]", "[257]", "[-1]", "[1.5]", "[18446744073709551615]"})
    EXPECT_TRUE(prompts(bad).starts_with("prompt")) << bad << " gave " << prompts(bad);
  std::string many = "[\"a\"";
  for (int i = 0; i < 64; ++i) many += ",\"a\"";
  EXPECT_TRUE(prompts(many + "]").starts_with("prompt"));
}

TEST(OpenAiRequest, MessagesAreCheckedOneByOne) {
  const auto refused = [](const std::string& messages) {
    const auto parsed = parse_generation(kT, json::parse("{\"messages\":" + messages + "}"), kModel);
    return parsed ? "accepted" : parsed.error().param;
  };
  EXPECT_EQ(refused("[]"), "messages");
  EXPECT_EQ(refused("\"a\""), "messages");
  EXPECT_EQ(refused("[5]"), "messages[0]");
  EXPECT_EQ(refused(R"([{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role":"user","content":null}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a"},{"role":"robot","content":"a"}])"), "messages[1].role");
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"image_url"}]}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"text","text":5}]}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":"a","tool_calls":[{}]}])"), "messages[0].tool_calls");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","other":1}])"), "messages[0].other");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":"","refusal":null,"name":"x"}])"), "accepted");
}

TEST(JsonReader, RefusesWhatIsNoJson) {
  const char* bad[] = {"", "{", "{\"a\":}", "{\"a\":1}}", "\xff", "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}", "{'a':1}", "[1,]", "nul", "NaN"};
  for (const char* text : bad) {
    const auto parsed = parse_json(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().message.find("json.exception"), std::string::npos);
    EXPECT_LT(parsed.error().message.size(), 400u);
  }
  EXPECT_FALSE(parse_json_object("[]"));
}

TEST(JsonReader, RefusesDeepNestingButNotBracketsInStrings) {
  EXPECT_FALSE(parse_json(std::string(10'000'000, '[')));
  EXPECT_FALSE(parse_json(std::string(33, '[') + std::string(33, ']')));
  EXPECT_TRUE(parse_json(std::string(32, '[') + std::string(32, ']')));
  EXPECT_TRUE(parse_json("\"" + std::string(100, '[') + "\\\"" + std::string(100, '{') + "\""));
}

}  // namespace
}  // namespace runahead
