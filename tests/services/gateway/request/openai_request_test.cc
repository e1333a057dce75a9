// Every field of a request has its type and its bounds, and an error names it.
#include "services/gateway/request/openai_request.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;

const ServedModel kModel{"toy", {"small"}, kToyVocab, 4096};

Result<GenerationRequest> parse(Endpoint endpoint, const std::string& fields) {
  const std::string must =
      endpoint == Endpoint::kChat ? R"("messages":[{"role":"user","content":"a"}])" : R"("prompt":"a")";
  const Result<ParsedJson> body = parse_json_object("{" + must + (fields.empty() ? "" : ",") + fields + "}");
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
    {kC, R"("best_of":2,"n":3)", "best_of", kNot},
    {kC, R"("best_of":0)", "best_of"},
    {kC, R"("min_tokens":-1)", "min_tokens"},
    {kC, R"("min_tokens":9,"max_tokens":8)", "min_tokens"},
    {kT, R"("max_tokens":0)", "max_tokens"},
    {kT, R"("max_tokens":0,"echo":true)", "max_tokens"},
    {kC, R"("max_tokens":16.5)", "max_tokens"},
    {kC, R"("max_tokens":1e300)", "max_tokens"},
    {kC, R"("seed":9223372036854775808)", "seed"},
    {kC, R"("seed":18446744073709551616)", "seed"},
    {kC, R"("seed":-9223372036854775809)", "seed"},
    {kC, R"("stop":["a",null])", "stop"},
    {kT, R"("response_format":{"type":"text","schema":1})", "response_format.schema", kNot},
    {kC, R"("stream":true,"stream_options":{"include_obfuscation":1})", "stream_options.include_obfuscation"},
    {kC, R"("unknown_thing":2)", "unknown_thing", kNot},
    {kC, R"("messages":[])", "messages", kNot},
    {kC, R"("model":"gpt-4")", "model", ErrorCode::kNotFound},
    {kC, R"("runahead":{"strategy":"magic"})", "runahead.strategy"},
    {kC, R"("runahead":{"cuts":[0]})", "runahead.cuts[0]"},
    {kC, R"("runahead":{"cuts":64})", "runahead.cuts"},
    {kC, R"("runahead":{"strategy":"single","cuts":[64]})", "runahead.cuts"},
    {kC, R"("runahead":{"workers":0})", "runahead.workers"},
    {kC, R"("runahead":{"other":0})", "runahead.other", kNot},
    {kT, R"("tools":[1])", "tools[0]"},
    {kT, R"("tools":[{"type":"function"}])", "tools[0].function"},
    {kT, R"("tools":[{"type":"web_search"}])", "tools[0].type", kNot},
    {kT, R"("tools":[{"function":{"name":"a b"}}])", "tools[0].function.name"},
    {kT, R"("tools":[{"function":{"name":"f","parameters":{"type":"string"}}}])", "tools[0].function.parameters"},
    {kT, R"("tools":[{"function":{"name":"f","other":1}}])", "tools[0].function.other", kNot},
    {kT, R"("tools":[{"function":{"name":"f"}},{"function":{"name":"f"}}])", "tools[1].function.name"},
    {kT, R"("tool_choice":"required")", "tool_choice"},
    {kT, R"("tool_choice":"always")", "tool_choice"},
    {kT, R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice"},
    {kT, R"("tools":[{"function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}})",
     "tool_choice.function.name"},
    {kT, R"("tools":[{"function":{"name":"f"}}],"tool_choice":"required","min_tokens":3)", "min_tokens"},
    {kT, R"("tools":[{"function":{"name":"f","strict":true}}],"ignore_eos":true)", "ignore_eos"},
    {kC, R"("tools":[])", "tools", kNot},
    {kT, R"("response_format":{"type":"grammar"})", "response_format.type", kNot},
    {kT, R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
    {kT, R"("response_format":{"type":"json_schema","json_schema":{"name":"x"}})",
     "response_format.json_schema.schema"},
    {kT, R"("response_format":{"type":"json_schema","json_schema":{"schema":{},"other":1}})",
     "response_format.json_schema.other", kNot},
    {kT, R"("response_format":{"type":"json_object"},"ignore_eos":true)", "ignore_eos"},
    {kT, R"("response_format":{"type":"json_object"},"min_tokens":3,"max_tokens":9)", "min_tokens"},
    {kC, R"("response_format":{"type":"json_object"})", "response_format", kNot},
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
  const auto chat =
      parse(kT, R"("tools":[],"tool_choice":"auto","parallel_tool_calls":true,"response_format":{"type":"text"},
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
  for (const char* bad :
       {"[]", "5", "null", "{}", "[[]]", "[1,\"a\"]", "[[1],2]", "[257]", "[-1]", "[1.5]", "[18446744073709551615]"})
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
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"image_url"}]}])"), "messages[0].content[0].type");
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"text","text":5}]}])"), "messages[0].content[0].text");
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"text","text":null}]}])"), "messages[0].content[0].text");
  EXPECT_EQ(refused(R"([{"role":"user","content":[{"type":"text","text":"a","other":1}]}])"),
            "messages[0].content[0].other");
  EXPECT_EQ(refused(R"([{"role":"user","content":["a"]}])"), "messages[0].content[0]");
  EXPECT_EQ(refused(R"([{"role":"user","content":{}}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([null])"), "messages[0]");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":"a","refusal":"no"}])"), "messages[0].refusal");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":null,"refusal":null}])"), "messages[0].content");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","refusal":"no"}])"), "messages[0].refusal");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","reasoning_content":"so"}])"), "messages[0].reasoning_content");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","tool_call_id":"x"}])"), "messages[0].tool_call_id");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":"a","audio":{"id":"x"}}])"), "messages[0].audio");
  EXPECT_EQ(refused(R"([{"role":"tool","content":"a","tool_call_id":"x"}])"), "messages[0].tool_call_id");
  EXPECT_EQ(refused(R"([{"role":"tool","content":"a"}])"), "messages[0].tool_call_id");
  EXPECT_EQ(refused(R"([{"role":"function","content":"a","name":"f"}])"), "messages[0].role");
  const auto with_call = [&](const std::string& call) {
    return refused(R"([{"role":"assistant","content":null,"tool_calls":[)" + call + "]}]");
  };
  EXPECT_EQ(with_call("{}"), "messages[0].tool_calls[0].id");
  EXPECT_EQ(with_call(R"({"id":"x","type":"function"})"), "messages[0].tool_calls[0].function");
  EXPECT_EQ(with_call(R"({"id":"x","function":{"name":""}})"), "messages[0].tool_calls[0].function.name");
  EXPECT_EQ(with_call(R"({"id":"x","function":{"name":"f","arguments":"[1]"}})"),
            "messages[0].tool_calls[0].function.arguments");
  EXPECT_EQ(with_call(R"({"id":"x","function":{"name":"f","arguments":{}}})"),
            "messages[0].tool_calls[0].function.arguments");
  EXPECT_EQ(with_call(R"({"id":"x","function":{"name":"f","arguments":"{}"}})"), "accepted");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","tool_calls":[{"id":"x","function":{"name":"f"}}]}])"),
            "messages[0].tool_calls");
  EXPECT_EQ(refused(R"([{"role":"user","content":"a","other":1}])"), "messages[0].other");
  EXPECT_EQ(refused(R"([{"role":"assistant","content":"","refusal":null,"name":"x"}])"), "accepted");
}

// What clients send back of an answer, field by field as they wrote it.
TEST(OpenAiRequest, HistoryOfClientsIsReadBack) {
  const auto read = [](const std::string& message) {
    const auto parsed = parse_generation(kT, json::parse("{\"messages\":[" + message + "]}"), kModel);
    return parsed ? parsed->messages[0].dump() : parsed.error().message;
  };
  const std::string plain = R"({"role":"assistant","content":"x"})";
  // openai 3.57: message.model_dump()
  EXPECT_EQ(read(R"({"content":"x","refusal":null,"role":"assistant","annotations":null,"audio":null,
      "function_call":null,"tool_calls":null})"),
            plain);
  EXPECT_EQ(read(R"({"content":"x","role":"assistant","annotations":[],"tool_calls":[]})"), plain);
  // litellm 1.110
  EXPECT_EQ(read(R"({"content":"x","role":"assistant","tool_calls":null,"function_call":null,
      "provider_specific_fields":{"refusal":null}})"),
            plain);
  EXPECT_EQ(read(R"({"role":"assistant","content":[{"type":"text","text":"x","annotations":[],"cache_control":
      {"type":"ephemeral"},"image_url":null}],"unheard_of":null,"name":null})"),
            plain);
  EXPECT_EQ(read(R"({"role":"assistant","content":null,"refusal":"I can not."})"),
            R"({"role":"assistant","content":"I can not."})");
  EXPECT_EQ(read(R"({"role":"assistant","content":[{"type":"refusal","refusal":"No."}]})"),
            R"({"role":"assistant","content":"No."})");
  EXPECT_EQ(read(R"({"role":"assistant","content":"x","reasoning_content":"so"})"),
            R"({"role":"assistant","content":"x","reasoning_content":"so"})");
}

TEST(OpenAiRequest, CallsAndAnswersOfToolsAreReadBack) {
  const auto parsed = parse_generation(kT, json::parse(R"({"messages":[{"role":"user","content":"?"},
      {"role":"assistant","content":null,"refusal":null,"annotations":[],"audio":null,"function_call":null,"tool_calls":[
        {"id":"call_1","function":{"arguments":"{\"z\": 1, \"a\": {}}","name":"f"},"type":"function","index":0}]},
      {"role":"tool","tool_call_id":"call_1","content":[{"type":"text","text":"ok"}]}]})"),
                                       kModel);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->messages[1].dump(),
            R"({"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":"function",)"
            R"("function":{"name":"f","arguments":{"z":1,"a":{}}}}]})");
  EXPECT_EQ(parsed->messages[2].dump(), R"({"role":"tool","content":"ok","tool_call_id":"call_1","name":"f"})");
}

TEST(OpenAiRequest, NullMeansNotGivenEverywhere) {
  std::istringstream known(
      "model temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logit_bias seed "
      "stop stop_token_ids ignore_eos stream stream_options return_progress return_token_ids runahead n best_of "
      "max_tokens max_completion_tokens min_tokens user store metadata service_tier echo suffix logprobs "
      "top_logprobs tools tool_choice parallel_tool_calls functions function_call response_format modalities "
      "audio prediction reasoning_effort parse_special add_generation_prompt unheard_of");
  for (std::string field; known >> field;)
    for (const Endpoint endpoint : {kC, kT}) {
      const auto parsed = parse(endpoint, "\"" + field + "\":null");
      EXPECT_TRUE(parsed) << field << ": " << parsed.error().message;
    }
  const char* nested[] = {
      R"("stream":true,"stream_options":{"include_usage":null,"continuous_usage_stats":null,"x":null})",
      R"("logit_bias":{"5":null})", R"("runahead":{"strategy":null,"cuts":null,"workers":null,"x":null})"};
  for (const char* fields : nested) EXPECT_TRUE(parse(kC, fields)) << fields;
  EXPECT_TRUE(parse(kC, R"("messages":null)"));
  EXPECT_TRUE(parse(kT, R"("prompt":null)"));
  EXPECT_TRUE(parse(kT, R"("response_format":{"type":null,"json_schema":null})"));
  EXPECT_TRUE(parse(kT, R"("response_format":{"type":"text","json_schema":null})"));
}

TEST(OpenAiRequest, WhatSaysNothingIsNotGiven) {
  EXPECT_TRUE(parse(kC, R"("suffix":"","best_of":1)"));
  EXPECT_TRUE(parse(kC, R"("n":2,"best_of":2)"));
  EXPECT_TRUE(parse(kT, R"("functions":[],"audio":{},"tools":[])"));
}

TEST(OpenAiRequest, WholeNumbersMayBeWrittenAsFloats) {
  const auto parsed = parse(kC, R"("max_tokens":16.0,"seed":-3.0,"n":2e0,"stop_token_ids":[7.0])");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->max_tokens, 16);
  EXPECT_EQ(*parsed->seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(parsed->choices_per_prompt, 2);
  EXPECT_EQ(parsed->inference.stop_tokens, std::vector<TokenId>{7});
  const auto ids = parse_generation(kC, json::parse(R"({"prompt":[1.0,2]})"), kModel);
  ASSERT_TRUE(ids);
  EXPECT_EQ(ids->prompts[0].tokens, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(parse(kC, R"("seed":9223372036854775807)")->seed, 9223372036854775807u);
}

// ---- defaults ----

SamplingParams sampling(const std::string& fields, GenerationDefaults defaults = {}) {
  ServedModel model = kModel;
  model.defaults = defaults;
  const auto parsed = parse_generation(kC, json::parse("{\"prompt\":\"a\"" + fields + "}"), model);
  EXPECT_TRUE(parsed) << fields;
  return parsed->inference.sampling;
}

TEST(OpenAiRequest, WhoSaysNothingGetsSaneSamplingWhoChoosesGetsOpenAis) {
  const SamplingParams untold = sampling("");
  EXPECT_EQ(untold.temperature, 0.8f);
  EXPECT_EQ(untold.top_k, 40);
  EXPECT_EQ(untold.top_p, 0.95f);
  EXPECT_EQ(untold.min_p, 0.05f);
  EXPECT_EQ(untold.repetition_penalty, 1.0f);
  for (const char* one : {R"(,"temperature":1)", R"(,"top_p":1)", R"(,"top_k":0)", R"(,"min_p":0)"}) {
    const SamplingParams chosen = sampling(one);
    EXPECT_EQ(chosen.temperature, 1.0f) << one;
    EXPECT_EQ(chosen.top_k, 0) << one;
    EXPECT_EQ(chosen.top_p, 1.0f) << one;
    EXPECT_EQ(chosen.min_p, 0.0f) << one;
  }
}

TEST(OpenAiRequest, TheModelsDefaultsHoldFieldByField) {
  const GenerationDefaults model{.temperature = 0.2f, .top_p = 0.9f, .repetition_penalty = 1.1f};
  const SamplingParams untold = sampling("", model);
  EXPECT_EQ(untold.temperature, 0.2f);
  EXPECT_EQ(untold.top_p, 0.9f);
  EXPECT_EQ(untold.top_k, 0) << "the model has chosen: nothing of ours";
  EXPECT_EQ(untold.repetition_penalty, 1.1f);
  const SamplingParams chosen = sampling(R"(,"temperature":0.7)", model);
  EXPECT_EQ(chosen.temperature, 0.7f);
  EXPECT_EQ(chosen.top_p, 0.9f);
}

TEST(OpenAiRequest, AnswersWithoutMaxTokensAreBoundedByContextAndKvMemory) {
  ServedModel model{.context_len = 131072};
  const auto chat = [&](int32_t prompt_len) { return default_max_tokens(kT, prompt_len, model); };
  EXPECT_EQ(default_max_tokens(kC, 10, model), 16) << "OpenAI's";
  EXPECT_EQ(chat(72), 131000) << "K/V memory is not known";
  model.kv_tokens = 80000;
  EXPECT_EQ(chat(72), 10000) << "an eighth: eight run side by side";
  EXPECT_EQ(chat(131000), 1) << "more than the memory holds: submit() says so";
  model.kv_tokens = 2048;
  EXPECT_EQ(chat(100), 1024);
  EXPECT_EQ(chat(2000), 48) << "what the memory still holds";
  model.context_len = 500;
  EXPECT_EQ(chat(100), 400);
  model.defaults.max_tokens = 50;
  EXPECT_EQ(chat(100), 50);
  EXPECT_EQ(chat(480), 20);
  model.defaults.max_tokens = 0;
  EXPECT_EQ(chat(100), 400) << "0: the rest of the context, whatever the memory";
}

// In linear time, or this test takes a minute.
TEST(JsonReader, ManyObjectsInAListAreReadOnce) {
  std::string text = "[";
  for (int i = 0; i < 500'000; ++i) text += i == 0 ? "{}" : ",{}";
  const auto parsed = parse_json(text + "]");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->value().size(), 500'000u);
}

TEST(JsonReader, ReadsWhatTheLibraryReads) {
  for (const char* text :
       {"null", "true", "-0", "1e3", "18446744073709551615", "-9223372036854775808", "\"a\\u00e9\\n\"", "[]", "{}",
        R"({"a":[1,{"b":[[],{}]},null,"x"],"c":{"d":-1.5}})", " [ 1 , 2 ] "})
    EXPECT_EQ(parse_json(text)->value(), nlohmann::json::parse(text)) << text;
  for (const char* text :
       {"", "{", "[1,]", "{\"a\":}", "{\"a\" 1}", "nul", "1 2", "\"\\x\"", "\"\xff\"", "1e400", "[1}", "01"})
    EXPECT_FALSE(parse_json(text)) << text;
}

TEST(JsonReader, RefusesAKeyThatComesTwice) {
  for (const char* text : {R"({"a":1,"a":2})", R"([{"x":{"b":1,"c":2,"b":1}}])", R"({"a":1,"\u0061":2})"}) {
    const auto parsed = parse_json(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find("twice"), std::string::npos) << parsed.error().message;
  }
  EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":[{"a":1},{"a":2}]})"));
}

TEST(JsonReader, RefusesWhatIsNoJson) {
  const char* bad[] = {"",        "{",    "{\"a\":}", "{\"a\":1}}", "\xff", "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}",
                       "{'a':1}", "[1,]", "nul",      "NaN"};
  for (const char* text : bad) {
    const auto parsed = parse_json(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().message.find("json.exception"), std::string::npos);
    EXPECT_LT(parsed.error().message.size(), 400u);
  }
  EXPECT_FALSE(parse_json_object("[]"));
}

TEST(JsonReader, RefusesDeepNestingButNotBracketsInStrings) {
  EXPECT_FALSE(parse_json(std::string(8'000'000, '[')));
  EXPECT_FALSE(parse_json(std::string(33, '[') + std::string(33, ']')));
  EXPECT_TRUE(parse_json(std::string(32, '[') + std::string(32, ']')));
  EXPECT_TRUE(parse_json("\"" + std::string(100, '[') + "\\\"" + std::string(100, '{') + "\""));
}

}  // namespace
}  // namespace runahead
