// The OpenAI routes over a scripted InferenceService, byte for byte as a client sees them.
#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

json body_of(const std::string& text) { return json::parse(text, nullptr, false); }

TEST_F(GatewayTest, AFailedAllocationFailsOneRequest) {
  for (const char* body : {R"({"prompt":"a"})", R"({"prompt":"a","stream":true})"}) {
    inference_.set({.no_memory = true});
    const RawAnswer answer = post("/v1/completions", body);
    EXPECT_EQ(answer.status, 503) << body;
    EXPECT_EQ(answer.error_code(), "unavailable");
    inference_.set({});
    EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 200) << "the process serves on";
  }
}

// A fault of ours in one request is not the end of the others.
TEST_F(GatewayTest, AJsonValueTakenForAnotherFailsOneRequest) {
  for (const char* path : {"/v1/completions", "/v1/messages"}) {
    const char* body = path == std::string("/v1/messages")
                           ? R"({"max_tokens":3,"messages":[{"role":"user","content":"a"}]})"
                           : R"({"prompt":"a"})";
    inference_.set({.odd_json = true});
    EXPECT_EQ(post(path, body).status, 500);
    inference_.set({});
    EXPECT_EQ(post(path, body).status, 200) << "the process serves on";
  }
}

TEST_F(GatewayTest, CompletionGivesTextUsageAndReport) {
  const RawAnswer answer = post("/v1/completions", R"({"model":"toy","prompt":"abc","max_tokens":20})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.json();
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_TRUE(body["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(body["choices"], body_of(R"([{"index":0,"text":"Hello","finish_reason":"stop","logprobs":null}])"));
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 5);
  EXPECT_EQ(body["usage"]["total_tokens"], 8);
  const json report = body["usage"]["runahead"];
  EXPECT_DOUBLE_EQ(report["ttft_seconds"], 0.75);
  EXPECT_DOUBLE_EQ(report["stages"]["prefill_compute"], 0.5);
  EXPECT_EQ(report["stages"].size(), 9u);
  EXPECT_EQ(report["workers"].size(), 2u);
  EXPECT_EQ(report["workers"][1]["begin"], 64);
  EXPECT_EQ(report["plan"]["cuts"], json::array({64}));
  EXPECT_EQ(report["plan"]["strategy"], "balanced");
  EXPECT_EQ(report["first_logits_sha256"], "ab");
  EXPECT_NE(answer.headers.at("server-timing").find("prefill_compute;dur=500.000"), std::string::npos);
  EXPECT_EQ(inference_.first_chunks, 1);
}

TEST_F(GatewayTest, RequestReachesTheActorsAsItWasSent) {
  const std::string sent =
      R"({"prompt":[1,2,3],"max_tokens":7,"temperature":0,"top_p":0.5,"top_k":4,"min_p":0.1,"seed":99,
      "presence_penalty":-1,"frequency_penalty":2,"repetition_penalty":1.5,"logit_bias":{"5":-100},"stop_token_ids":[9],
      "user":"u","runahead":{"cuts":[64,128],"workers":3}})";
  ASSERT_EQ(post("/v1/completions", sent).status, 200);
  const InferenceRequest request = inference_.requests().at(0);
  EXPECT_EQ(request.prompt, (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(request.max_new_tokens, 7);
  EXPECT_EQ(request.sampling.temperature, 0.0f);
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 4);
  EXPECT_EQ(request.sampling.min_p, 0.1f);
  EXPECT_EQ(request.sampling.seed, 99u);
  EXPECT_EQ(request.sampling.presence_penalty, -1.0f);
  EXPECT_EQ(request.sampling.frequency_penalty, 2.0f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(request.sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{5, -100.0f}}));
  EXPECT_EQ(request.sampling.top_logprobs, -1);
  EXPECT_EQ(request.stop_tokens, (std::vector<TokenId>{9, kToyEnd}));
  EXPECT_EQ(request.strategy, Strategy::kByHand);
  EXPECT_EQ(request.cuts, (std::vector<int32_t>{64, 128}));
  EXPECT_EQ(request.workers_max, 3);
  EXPECT_GT(request.received_at.count(), 0);
}

TEST_F(GatewayTest, DefaultsAreThoseOfTheDocuments) {
  ASSERT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 200);
  ASSERT_EQ(post("/v1/completions", R"({"prompt":"a","ignore_eos":true})").status, 200);
  ASSERT_EQ(post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})").status, 200);
  const auto requests = inference_.requests();
  EXPECT_EQ(requests[0].max_new_tokens, 16);
  EXPECT_EQ(requests[0].sampling.temperature, 0.8f);
  EXPECT_EQ(requests[1].stop_tokens, std::vector<TokenId>{});
  EXPECT_EQ(requests[2].max_new_tokens, 4096 - 18) << "the rest of the context: nothing is known of K/V memory";
  EXPECT_NE(requests[0].sampling.seed, requests[1].sampling.seed) << "without a seed every request gets its own";
}

TEST_F(GatewayTest, ChatRendersTheTemplateAndJoinsTextParts) {
  const RawAnswer answer = post("/v1/chat/completions", R"({"model":"toy","max_completion_tokens":3,"messages":[
      {"role":"developer","content":"S"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["message"], body_of(R"({"role":"assistant","content":"Hel","refusal":null})"));
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(answer.json()["object"], "chat.completion");
  const auto tokens = inference_.requests().at(0).prompt;
  EXPECT_EQ(std::string(tokens.begin(), tokens.end()), "<system>S<user>ab<assistant>");
}

TEST_F(GatewayTest, ChatStreamHasRoleFirstThenFinishUsageAndDone) {
  const RawAnswer answer = post("/v1/chat/completions", R"({"stream":true,"stream_options":{"include_usage":true},
      "messages":[{"role":"user","content":"hi"}]})");
  ASSERT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream");
  const auto events = answer.events();
  ASSERT_EQ(events.size(), 8u) << answer.body;  // five bytes, finish, usage, [DONE]
  std::string text;
  for (size_t i = 0; i < 5; ++i) {
    const json chunk = body_of(events[i].data);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["choices"][0]["delta"].contains("role"), i == 0);
    EXPECT_EQ(chunk["choices"][0]["finish_reason"], nullptr);
    text += chunk["choices"][0]["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(text, "Hello");
  EXPECT_EQ(body_of(events[5].data)["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body_of(events[6].data)["choices"], json::array());
  EXPECT_EQ(body_of(events[6].data)["usage"]["completion_tokens"], 5);
  EXPECT_TRUE(body_of(events[6].data)["usage"].contains("runahead"));
  EXPECT_EQ(events[7].data, "[DONE]");
}

TEST_F(GatewayTest, StreamHoldsBackIncompleteCharactersButSaysThatItHasBegun) {
  inference_.set({.text = "\xC3\xA9\xE2\x82\xAC!"});  // é, €, !: one token a byte
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","stream":true})");
  std::vector<std::string> texts;
  for (const SseEvent& event : answer.events())
    if (event.data != "[DONE]") texts.push_back(body_of(event.data)["choices"][0]["text"]);
  EXPECT_EQ(texts, (std::vector<std::string>{"", "é", "€", "!", ""}));
}

TEST_F(GatewayTest, StopStringCutsExactlyAndEndsTheRequest) {
  inference_.set({.text = "one STOX STOP three", .endless = true});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","max_tokens":500,"stop":["nothing","STOP"]})");
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], "one STOX ");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(answer.json()["usage"]["completion_tokens"], 13) << "the tokens up to the end of the stop string";
  EXPECT_EQ(answer.json()["usage"]["runahead"]["ttft_seconds"], 0.75) << "it is finished, not cancelled";
  EXPECT_EQ(inference_.finished, 1);
  EXPECT_EQ(inference_.cancelled, 0);
}

TEST_F(GatewayTest, EchoAndSeveralPromptsAndChoices) {
  const RawAnswer answer =
      post("/v1/completions", R"({"prompt":["ab","c"],"n":2,"echo":true,"seed":5,"max_tokens":2})");
  const json body = answer.json();
  ASSERT_EQ(body["choices"].size(), 4u) << answer.body;
  EXPECT_EQ(body["choices"][1]["text"], "abHe");
  EXPECT_EQ(body["choices"][2]["text"], "cHe");
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3) << "a prompt counts once, whatever n is";
  EXPECT_EQ(body["usage"]["completion_tokens"], 8);
  const auto requests = inference_.requests();
  EXPECT_EQ(requests[0].sampling.seed, 5u);
  EXPECT_EQ(requests[1].sampling.seed, 6u);
  EXPECT_EQ(requests[2].sampling.seed, 5u);
}

TEST_F(GatewayTest, LogprobsInBothForms) {
  const json chat = post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"logprobs":true,
      "top_logprobs":2,"max_tokens":2})")
                        .json();
  const json content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "H");
  EXPECT_EQ(content[0]["bytes"], json::array({72}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[1]["top_logprobs"][1]["token"], "f");
  const json plain = post("/v1/completions", R"({"prompt":"a","logprobs":1,"max_tokens":2})").json();
  const json logprobs = plain["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json::array({"H", "e"}));
  EXPECT_EQ(logprobs["text_offset"], json::array({0, 1}));
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"H", -0.5}}));
}

TEST_F(GatewayTest, CompletionLogprobsCountCharactersAndLoseNoToken) {
  inference_.set({.text = "\xC3\xA9\xFFx"});  // é in two tokens, a byte that is no text, x
  const auto logprobs = [&](int top) {
    return post("/v1/completions", json({{"prompt", "a"}, {"max_tokens", 4}, {"logprobs", top}}).dump())
        .json()["choices"][0]["logprobs"];
  };
  const json none = logprobs(0);
  EXPECT_EQ(none["tokens"], json::array({"bytes:\\xc3", "bytes:\\xa9", "bytes:\\xff", "x"}));
  EXPECT_EQ(none["text_offset"], json::array({0, 0, 1, 2}));
  EXPECT_EQ(none["top_logprobs"][3], json({{"x", -0.5}})) << "the chosen token, though it is not among the 0 likeliest";
  const json three = logprobs(3);
  EXPECT_EQ(three["top_logprobs"][0], json({{"bytes:\\xc3", -0.5}, {"bytes:\\xc4", -1.5}, {"bytes:\\xc5", -2.5}}))
      << "each broken byte is a name of its own";
  EXPECT_EQ(three["top_logprobs"][2].size(), 3u) << three["top_logprobs"][2];
}

TEST_F(GatewayTest, StreamedOffsetsGoOnBehindTheEcho) {
  inference_.set({.text = "é!"});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","max_tokens":3,"logprobs":0,"stream":true})");
  json offsets = json::array();
  for (const SseEvent& event : answer.events()) {
    const json logprobs = event.data == "[DONE]" ? json() : body_of(event.data)["choices"][0]["logprobs"];
    if (logprobs.is_object())
      offsets.insert(offsets.end(), logprobs["text_offset"].begin(), logprobs["text_offset"].end());
  }
  EXPECT_EQ(offsets, json::array({0, 0, 1}));
}

TEST_F(GatewayTest, NoTokensWithEchoIsThePromptAlone) {
  const RawAnswer answer = post("/v1/completions", R"({"prompt":["ab",[99,100]],"max_tokens":0,"echo":true})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.json();
  EXPECT_EQ(body["choices"][0], body_of(R"({"index":0,"text":"ab","finish_reason":"length","logprobs":null})"));
  EXPECT_EQ(body["choices"][1]["text"], "cd");
  EXPECT_EQ(body["usage"], body_of(R"({"prompt_tokens":4,"completion_tokens":0,"total_tokens":4,
                                        "prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0}})"));
  const RawAnswer streamed = post("/v1/completions", R"({"prompt":"ab","max_tokens":0,"echo":true,"stream":true})");
  ASSERT_EQ(streamed.events().size(), 3u) << streamed.body;
  EXPECT_EQ(body_of(streamed.events()[0].data)["choices"][0]["text"], "ab");
  EXPECT_EQ(body_of(streamed.events()[1].data)["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(streamed.events()[2].data, "[DONE]");
  EXPECT_TRUE(inference_.requests().empty()) << "nothing is asked of the workers";
}

TEST_F(GatewayTest, MinTokensReachTheSampler) {
  inference_.set({.text = "aXbXc"});
  const json choice = post("/v1/completions", R"({"prompt":"abc","max_tokens":9,"min_tokens":3,"stop":"X",
      "stop_token_ids":[7]})")
                          .json()["choices"][0];
  EXPECT_EQ(choice["text"], "aXb") << "the first X is among the first three tokens";
  EXPECT_EQ(choice["finish_reason"], "stop");
  post("/v1/completions", R"({"prompt":"abc","min_tokens":20})");
  const auto requests = inference_.requests();
  EXPECT_EQ(requests[0].sampling.banned, (std::vector<TokenId>{7, kToyEnd}));
  EXPECT_EQ(requests[0].sampling.banned_before, 6) << "a position, so that a retry counts the same";
  EXPECT_EQ(requests[1].max_new_tokens, 20) << "the default gives way";
}

TEST_F(GatewayTest, UsageComesWithEveryChunkForWhoAsks) {
  const auto usages = [&](const std::string& options) {
    json list = json::array();
    const RawAnswer answer =
        post("/v1/completions", R"({"prompt":"abc","stream":true,"stream_options":)" + options + "}");
    for (const SseEvent& event : answer.events())
      if (event.data != "[DONE]") list.push_back(body_of(event.data).value("usage", json("absent")));
    return list;
  };
  const json all = usages(R"({"include_usage":true,"continuous_usage_stats":true})");
  ASSERT_EQ(all.size(), 7u) << all;  // five bytes, finish, usage
  EXPECT_EQ(all[0], body_of(R"({"prompt_tokens":3,"completion_tokens":1,"total_tokens":4})"));
  EXPECT_EQ(all[4]["completion_tokens"], 5);
  EXPECT_EQ(all[5]["completion_tokens"], 5);
  EXPECT_TRUE(all[6].contains("runahead"));
  const json last = usages(R"({"include_usage":true})");
  ASSERT_EQ(last.size(), 7u);
  EXPECT_EQ(last[0], nullptr) << "OpenAI: every chunk has the field, null before the last one";
  EXPECT_EQ(usages(R"({"include_usage":null})"), json(std::vector<json>(6, "absent")));
}

TEST_F(GatewayTest, SilenceIsFilledWithPingsFromTheFirstMoment) {
  inference_.set({.before_first = 450ms});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","stream":true})");
  EXPECT_TRUE(answer.body.starts_with(": ping\n\n")) << "the first comment comes before the first token";
  size_t pings = 0;
  for (size_t at = 0; (at = answer.body.find(": ping\n\n", at)) != std::string::npos; ++at) ++pings;
  EXPECT_GE(pings, 3u);  // at once, and every 100 ms of 450 ms; a busy machine may be late with some
  EXPECT_EQ(answer.events().back().data, "[DONE]");
}

TEST_F(GatewayTest, ProgressIsStreamedOnlyToThoseWhoAsk) {
  inference_.set({.progress = true});
  const RawAnswer asked = post("/v1/completions", R"({"prompt":"abcd","stream":true,"return_progress":true})");
  const json progress = body_of(asked.events()[0].data)["prompt_progress"];
  EXPECT_EQ(progress["total"], 4);
  EXPECT_EQ(progress["processed"], 2);
  EXPECT_EQ(progress["workers"][1]["fraction"], 0.0);
  const RawAnswer silent = post("/v1/completions", R"({"prompt":"abcd","stream":true})");
  EXPECT_EQ(silent.body.find("prompt_progress"), std::string::npos);
}

TEST_F(GatewayTest, ErrorInTheStreamIsAnEventAndThereIsNoDone) {
  inference_.set({.fail_at_end = Error{ErrorCode::kWorkerLost, "a worker died and no attempt is left", ""}});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","stream":true})");
  const SseEvent last = answer.events().back();
  EXPECT_EQ(last.name, "error");
  EXPECT_EQ(body_of(last.data)["error"]["code"], "worker_lost");
  EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos);
  const RawAnswer whole = post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(whole.status, 503);
  EXPECT_EQ(whole.error_code(), "worker_lost");
}

TEST_F(GatewayTest, OverloadIs429WithRetryAfter) {
  inference_.set({.refuse = overloaded("the queue is full", 7).error()});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"a","stream":true})");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.headers.at("retry-after"), "7");
  EXPECT_EQ(answer.error_code(), "overloaded");
  EXPECT_EQ(answer.json()["error"]["param"], nullptr);
  EXPECT_TRUE(eventually([&] { return metrics_.seen() == std::vector<std::string>{"completions:rejected"}; }));
}

TEST_F(GatewayTest, ContextOverflowNamesBothNumbers) {
  inference_.set({.context_len = 10});
  const RawAnswer answer = post("/v1/completions", R"({"prompt":"0123456789","max_tokens":3})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.error_code(), "context_length_exceeded");
  const std::string message = answer.json()["error"]["message"];
  EXPECT_NE(message.find("10 tokens"), std::string::npos) << message;
  EXPECT_TRUE(inference_.requests().empty());
}

TEST_F(GatewayTest, LongPromptsAreTokenizedOnTheLaneAndGiveTheSame) {
  inference_.set({.context_len = 1 << 20});
  const std::string prompt(100'000, 'x');
  const RawAnswer answer = post("/v1/completions", json({{"prompt", prompt}}).dump());
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["usage"]["prompt_tokens"], 100'000);
  const RawAnswer bad = post("/v1/completions", json({{"prompt", prompt}, {"n", 100}}).dump());
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.json()["error"]["param"], "n");
}

// The client has its answer: that its connection ends before ours has, with FIN or with a reset, is no cancelled
// request.
TEST_F(GatewayTest, ClosingAtDoneIsNoCancellation) {
  for (int i = 0; i < 200; ++i) {
    RawClient client = this->client();
    client.send(post_bytes("/v1/completions", R"({"prompt":"a","stream":true})"));
    const std::string needle = i % 4 < 2 ? "[DONE]" : R"("finish_reason":"stop")";
    ASSERT_NE(client.receive_until(needle).find(needle), std::string::npos);
    if (i % 2 == 0) {
      client.close();
    } else {
      client.reset();
    }
  }
  ASSERT_TRUE(eventually([&] { return metrics_.seen().size() == 200; }));
  EXPECT_EQ(metrics_.seen(), std::vector<std::string>(200, "completions:ok"));
  EXPECT_EQ(inference_.cancelled, 0);
}

TEST_F(GatewayTest, OutcomesAndReasonsAreCounted) {
  using Names = std::vector<std::string>;
  post("/v1/completions", R"({"prompt":"a","n":99})");
  post("/v1/completions", "{");
  post("/v1/completions", json({{"prompt", std::string(5000, 'x')}}).dump());
  post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"functions":[1]})");
  post("/v1/chat/completions", R"({"model":"other","messages":[{"role":"user","content":"a"}]})");
  post("/tokenize", R"({"prompt":5})");
  post("/v1/completions", "text", "Content-Encoding: gzip\r\n");
  post("/v1/nothing", "{}");
  get("/v1/models/other");
  inference_.set({.refuse = overloaded("the queue is full", 7).error()});
  post("/v1/completions", R"({"prompt":"a"})");
  inference_.set({.refuse = Error{ErrorCode::kUnavailable, "no worker", ""}});
  post("/v1/completions", R"({"prompt":"a"})");
  inference_.set({.fail_at_end = Error{ErrorCode::kWorkerLost, "no attempt is left", ""}});
  post("/v1/completions", R"({"prompt":"a"})");
  ASSERT_TRUE(eventually([&] { return metrics_.seen().size() == 8; }));
  EXPECT_EQ(metrics_.seen(), (Names{"completions:client_error", "completions:client_error", "completions:client_error",
                                    "chat:client_error", "chat:client_error", "completions:rejected",
                                    "completions:server_error", "completions:server_error"}));
  EXPECT_EQ(metrics_.rejected(), (Names{"invalid_argument", "invalid_argument", "context_length_exceeded",
                                        "unsupported_parameter", "not_found", "invalid_argument",
                                        "unsupported_media_type", "not_found", "overloaded", "unavailable"}))
      << "what a lost worker ends was taken, and a GET brings no work";
}

TEST_F(GatewayTest, DisconnectCancelsStreamedAndWholeAnswers) {
  inference_.set({.between = 20ms, .endless = true});
  for (const char* body :
       {R"({"prompt":"a","max_tokens":4000,"stream":true})", R"({"prompt":"a","max_tokens":4000})"}) {
    const int before = inference_.cancelled;
    const int produced = inference_.produced;
    RawClient client = this->client();
    client.send(post_bytes("/v1/completions", body));
    ASSERT_TRUE(eventually([&] { return inference_.produced > produced + 1; }));
    client.close();
    EXPECT_TRUE(eventually([&] { return inference_.cancelled == before + 1; }, 500ms)) << body;
  }
  EXPECT_TRUE(eventually([&] { return metrics_.seen().size() == 2; }));
  EXPECT_EQ(metrics_.seen(), (std::vector<std::string>{"completions:cancelled", "completions:cancelled"}));
}

TEST_F(GatewayTest, SeveralChoicesOfOneStreamAreInterleavedAndAllCancelled) {
  inference_.set({.between = 10ms, .endless = true});
  RawClient client = this->client();
  client.send(post_bytes("/v1/completions", R"({"prompt":"a","n":3,"max_tokens":4000,"stream":true})"));
  const std::string seen = client.receive_until("\"index\":2");
  EXPECT_NE(seen.find("\"index\":0"), std::string::npos);
  client.close();
  EXPECT_TRUE(eventually([&] { return inference_.cancelled == 3; }));
}

TEST_F(GatewayTest, ModelsHealthVersionClusterAndMetrics) {
  EXPECT_EQ(get("/v1/models").json()["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(get("/v1/models/toy").json()["id"], "toy");
  EXPECT_EQ(get("/v1/models/other").error_code(), "not_found");
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_EQ(get("/readyz?verbose").json()["cluster"]["workers"].size(), 2u);
  EXPECT_EQ(get("/version").json(), json({{"version", "1.2.3"}, {"revision", "abc"}}));
  EXPECT_EQ(get("/v1/cluster").json()["workers"][1]["role"], "decode");
  EXPECT_NE(get("/metrics").body.find("runahead_up 1"), std::string::npos);
  EXPECT_TRUE(get("/openapi.json").json()["openapi"].get<std::string>().starts_with("3."));
  Script script;
  script.ready = false;
  inference_.set(script);
  const RawAnswer answer = get("/readyz");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.error_code(), "unavailable");
  EXPECT_EQ(answer.json()["reasons"].size(), 2u);
  EXPECT_EQ(get("/livez").status, 200) << "a service without workers is alive";
}

TEST_F(GatewayTest, OpenApiNamesEveryStrategyThatIsParsed) {
  std::set<std::string> named;
  const json document = get("/openapi.json").json().flatten();
  for (const auto& [key, value] : document.items())
    if (key.find("/strategy/enum/") != std::string::npos && value.is_string()) named.insert(value);
  for (const std::string& strategy : named) EXPECT_TRUE(parse_strategy(strategy)) << strategy;
  for (const Strategy strategy :
       {Strategy::kSingle, Strategy::kEven, Strategy::kBalanced, Strategy::kSearched, Strategy::kPredicted})
    EXPECT_TRUE(named.contains(std::string(name(strategy)))) << name(strategy);
}

TEST_F(GatewayTest, OpenApiDescribesEveryRouteAndNoOther) {
  EXPECT_EQ(answered_routes(), described_routes());
  for (const std::string& route : described_routes()) {  // and what the router lists is what it answers
    const size_t space = route.find(' ');
    const std::string path = route.substr(space + 1), method = route.substr(0, space);
    RawAnswer answer = client().request("OPTIONS " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(answer.status, 204) << route;
    EXPECT_NE((answer.headers["allow"] + ",").find(method + ","), std::string::npos) << route;
  }
}

TEST_F(GatewayTest, TokenizeDetokenizeAndTemplate) {
  EXPECT_EQ(post("/tokenize", R"({"prompt":"ab"})").json(),
            body_of(R"({"tokens":[97,98],"count":2,"max_model_len":4096})"));
  EXPECT_EQ(post("/tokenize", R"({"content":"c"})").json()["count"], 1);
  EXPECT_EQ(post("/tokenize", R"({"messages":[{"role":"user","content":"c"}]})").json()["count"], 18);
  EXPECT_EQ(post("/tokenize", R"({"content":"c","prompt":"c"})").status, 400);
  EXPECT_EQ(post("/detokenize", R"({"tokens":[97,98]})").json()["prompt"], "ab");
  EXPECT_EQ(post("/detokenize", R"({"tokens":[97,257]})").json()["error"]["param"], "tokens[1]");
  EXPECT_EQ(post("/apply-template", R"({"messages":[{"role":"user","content":"c"}]})").json()["prompt"],
            "<user>c<assistant>");
}

}  // namespace
}  // namespace runahead
