// OpenAI's Responses API over the real JobService, a store in memory and a scripted InferenceService.
#include <filesystem>
#include <fstream>

#include "base/json_text.h"
#include "tests/services/gateway/jobs_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class ResponsesTest : public KeepingTest {
 protected:
  json create(const json& body, int status = 200) {
    const RawAnswer answer = post("/v1/responses", to_text(body));
    EXPECT_EQ(answer.status, status) << answer.body;
    return answer.json();
  }
  json shown(const std::string& id) { return get("/v1/responses/" + id).json(); }
  json wait_for(const std::string& id, const std::string& status) {
    json response;
    EXPECT_TRUE(eventually([&] { return (response = shown(id))["status"] == status; })) << response;
    return response;
  }
  RawAnswer remove(const std::string& id) {
    return client().request("DELETE /v1/responses/" + id + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  std::string last_prompt() { return codec_.decode(inference_.requests().back().prompt); }
};

TEST_F(ResponsesTest, AResponseIsAChatInItsShapeAndIsKept) {
  const json made =
      create({{"model", "toy"}, {"input", "abc"}, {"instructions", "Be brief."}, {"metadata", {{"a", "b"}}}});
  EXPECT_EQ(last_prompt(), "<system>Be brief.<user>abc<assistant>");
  EXPECT_TRUE(made["id"].get<std::string>().starts_with("resp_"));
  EXPECT_EQ(made["object"], "response");
  EXPECT_EQ(made["status"], "completed");
  EXPECT_EQ(made["output"][0]["role"], "assistant");
  EXPECT_EQ(made["output"][0]["content"][0]["type"], "output_text");
  EXPECT_EQ(made["output"][0]["content"][0]["text"], "Hello");
  EXPECT_EQ(made["metadata"]["a"], "b");
  EXPECT_EQ(made["instructions"], "Be brief.");
  EXPECT_EQ(made["usage"]["output_tokens"], 5);
  EXPECT_EQ(made["usage"]["input_tokens"], std::ssize(last_prompt()));
  EXPECT_EQ(shown(made["id"]), made) << "what is kept is what was answered";
  EXPECT_EQ(get("/v1/jobs/" + made["id"].get<std::string>()).json()["status"], "succeeded") << "it is a job, too";
  EXPECT_EQ(metrics_.seen().front(), "responses:ok");
}

TEST_F(ResponsesTest, AConversationGoesOnAndItsItemsAreListedByPages) {
  const json first = create({{"input", "one"}, {"instructions", "not carried on"}});
  inference_.set({.text = "Bye"});
  const json parts = json::array({{{"type", "input_text"}, {"text", "tw"}}, {{"type", "input_text"}, {"text", "o"}}});
  const json second =
      create({{"input", json::array({{{"role", "user"}, {"content", parts}}})}, {"previous_response_id", first["id"]}});
  EXPECT_EQ(last_prompt(), "<user>one<assistant>Hello<user>two<assistant>");
  create({{"input", "three"}, {"previous_response_id", second["id"]}});
  EXPECT_EQ(last_prompt(), "<user>one<assistant>Hello<user>two<assistant>Bye<user>three<assistant>");

  const std::string path = "/v1/responses/" + second["id"].get<std::string>() + "/input_items";
  const json all = get(path + "?order=asc").json();
  ASSERT_EQ(all["data"].size(), 3u) << all;
  EXPECT_EQ(all["data"][0]["content"][0]["text"], "one");
  EXPECT_EQ(all["data"][1], first["output"][0]) << "an answer comes back as it was given";
  EXPECT_EQ(all["data"][2]["content"], parts);
  const json newest = get(path + "?limit=1").json();
  EXPECT_EQ(newest["data"][0]["id"], all["data"][2]["id"]);
  EXPECT_EQ(newest["has_more"], true);
  const json rest = get(path + "?after=" + newest["last_id"].get<std::string>()).json();
  EXPECT_EQ(rest["data"][0]["id"], all["data"][1]["id"]);
  EXPECT_EQ(rest["has_more"], false);
  EXPECT_EQ(get(path + "?limit=0").status, 400);
  EXPECT_EQ(get(path + "?after=nothing").status, 404);
}

TEST_F(ResponsesTest, WhatIsDeletedIsGoneAndNoConversationGoesOnFromIt) {
  const json first = create({{"input", "one"}});
  const json second = create({{"input", "two"}, {"previous_response_id", first["id"]}});
  const RawAnswer gone = remove(first["id"]);
  EXPECT_EQ(gone.json(), (json{{"id", first["id"]}, {"object", "response"}, {"deleted", true}}));
  EXPECT_EQ(get("/v1/responses/" + first["id"].get<std::string>()).status, 404);
  EXPECT_EQ(remove(first["id"]).status, 404);
  EXPECT_EQ(shown(second["id"]), second);
  const json refused = create({{"input", "three"}, {"previous_response_id", second["id"]}}, 404);
  EXPECT_EQ(refused["error"]["param"], "previous_response_id");
  EXPECT_NE(refused["error"]["message"].get<std::string>().find("deleted"), std::string::npos);
}

TEST_F(ResponsesTest, NothingIsKeptWhereStoreIsFalse) {
  const json made = create({{"input", "abc"}, {"store", false}});
  EXPECT_EQ(made["store"], false);
  EXPECT_EQ(made["output"][0]["content"][0]["text"], "Hello");
  EXPECT_EQ(get("/v1/responses/" + made["id"].get<std::string>()).status, 404);
  EXPECT_EQ(create({{"input", "x"}, {"store", false}, {"background", true}}, 400)["error"]["param"], "background");
}

TEST_F(ResponsesTest, AnAnswerThatMaxTokensCutsIsIncomplete) {
  inference_.set({.text = "Hello", .endless = true});
  const json made = create({{"input", "abc"}, {"max_output_tokens", 7}});
  EXPECT_EQ(made["status"], "incomplete");
  EXPECT_EQ(made["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(made["output"][0]["status"], "incomplete");
  EXPECT_EQ(made["output"][0]["content"][0]["text"], "HelloHe");
}

TEST_F(ResponsesTest, AStreamNamesAndNumbersItsEventsAndEndsWithWhatIsKept) {
  const RawAnswer answer = post("/v1/responses", R"({"input":"abc","stream":true,"top_logprobs":1})");
  const std::vector<NamedEvent> events = named_events(answer.body);
  std::vector<std::string> names;
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    names.push_back(events[i].name);
    EXPECT_EQ(events[i].data["type"], events[i].name);
    EXPECT_EQ(events[i].data["sequence_number"], i);
    if (events[i].name == "response.output_text.delta") {
      text += events[i].data["delta"].get<std::string>();
      EXPECT_EQ(events[i].data["logprobs"].size(), 1u);
    }
  }
  const std::string delta = "response.output_text.delta";
  EXPECT_EQ(names, (std::vector<std::string>{"response.created", "response.in_progress", "response.output_item.added",
                                             "response.content_part.added", delta, delta, delta, delta, delta,
                                             "response.output_text.done", "response.content_part.done",
                                             "response.output_item.done", "response.completed"}));
  EXPECT_EQ(text, "Hello");
  const json& done = events.back().data["response"];
  EXPECT_EQ(done["output"][0], events[11].data["item"]);
  EXPECT_EQ(shown(done["id"]), done);
}

TEST_F(ResponsesTest, AStreamThatFailsSaysSoAndIsKept) {
  inference_.set({.text = "Hello", .fail_at_end = Error{ErrorCode::kUnavailable, "a worker is gone", ""}});
  const std::vector<NamedEvent> events = named_events(post("/v1/responses", R"({"input":"abc","stream":true})").body);
  ASSERT_EQ(events.back().name, "response.failed");
  const json& response = events.back().data["response"];
  EXPECT_EQ(response["error"], (json{{"code", "server_error"}, {"message", "a worker is gone"}}));
  EXPECT_EQ(shown(response["id"])["status"], "failed");
  EXPECT_EQ(create({{"input", "x"}, {"previous_response_id", response["id"]}}, 400)["error"]["param"],
            "previous_response_id");
}

TEST_F(ResponsesTest, AReaderOfTheBackgroundGoesOnWhereItWas) {
  const json queued = create({{"input", "abc"}, {"background", true}});
  EXPECT_TRUE(queued["status"] == "queued" || queued["status"] == "in_progress") << queued;
  const std::string path = "/v1/responses/" + queued["id"].get<std::string>();
  const json whole = wait_for(queued["id"], "completed");
  EXPECT_EQ(whole["output"][0]["content"][0]["text"], "Hello");
  const std::vector<NamedEvent> all = named_events(get(path + "?stream=true").body);
  ASSERT_EQ(all.size(), 13u);
  EXPECT_EQ(all.back().data["response"], whole);
  for (size_t seen = 0; seen < all.size(); ++seen) {
    const std::vector<NamedEvent> rest =
        named_events(get(path + "?stream=true&starting_after=" + std::to_string(seen)).body);
    ASSERT_EQ(rest.size(), all.size() - seen - 1);
    for (size_t i = 0; i < rest.size(); ++i) EXPECT_EQ(rest[i].data, all[seen + 1 + i].data);
  }
  const std::vector<NamedEvent> streamed =
      named_events(post("/v1/responses", R"({"input":"abc","background":true,"stream":true})").body);
  EXPECT_EQ(streamed.size(), all.size());
  EXPECT_EQ(get(path + "?starting_after=3").status, 400);
  EXPECT_EQ(get(path + "?stream=maybe").status, 400);
  EXPECT_EQ(get(path + "?limit=3").json()["error"]["param"], "limit");
}

TEST_F(ResponsesTest, CancelEndsWhatRunsInTheBackgroundAndNothingElse) {
  inference_.set({.text = "la", .between = 5ms, .endless = true});
  const json running = create({{"input", "abc"}, {"background", true}, {"max_output_tokens", 100000}}, 400);
  EXPECT_EQ(running["error"]["code"], "context_length_exceeded");
  const std::string id = create({{"input", "abc"}, {"background", true}, {"max_output_tokens", 4000}})["id"];
  wait_for(id, "in_progress");
  const json cancelled = post("/v1/responses/" + id + "/cancel", "").json();
  EXPECT_EQ(cancelled["status"], "cancelled") << cancelled;
  EXPECT_EQ(inference_.cancelled, 1);
  EXPECT_EQ(post("/v1/responses/" + id + "/cancel", "").json()["status"], "cancelled") << "again changes nothing";
  EXPECT_EQ(named_events(get("/v1/responses/" + id + "?stream=true").body).back().data["response"]["status"],
            "cancelled");
  inference_.set({});
  const std::string waited = create({{"input", "abc"}})["id"];
  EXPECT_EQ(post("/v1/responses/" + waited + "/cancel", "").status, 400);
  EXPECT_EQ(get("/v1/responses/" + waited + "?stream=true").status, 400);
  inference_.set({.text = "la", .between = 5ms, .endless = true});
  const std::string deleted = create({{"input", "abc"}, {"background", true}, {"max_output_tokens", 4000}})["id"];
  EXPECT_EQ(remove(deleted).json()["deleted"], true) << "what runs is ended first";
  EXPECT_EQ(inference_.cancelled, 2);
}

TEST_F(ResponsesTest, AnIdempotencyKeyIsOfOneBackgroundResponse) {
  const std::string body = R"({"input":"abc","background":true})";
  const json first = post("/v1/responses", body, "Idempotency-Key: k\r\n").json();
  EXPECT_EQ(post("/v1/responses", body, "Idempotency-Key: k\r\n").json()["id"], first["id"]);
  const RawAnswer other = post("/v1/responses", R"({"input":"d","background":true})", "Idempotency-Key: k\r\n");
  EXPECT_EQ(other.status, 422);
}

TEST_F(ResponsesTest, WhatIsNotSupportedIsRefusedByItsName) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {R"({"input":"a","tools":[{"type":"web_search"}]})", "tools[0].type"},
      {R"({"input":"a","tools":[{"type":"function","name":"a b"}]})", "tools[0].name"},
      {R"({"input":"a","tools":[{"type":"function","name":"a"}]})", "tools"},
      {R"({"input":"a","tool_choice":"required"})", "tool_choice"},
      {R"({"input":"a","truncation":"auto"})", "truncation"},
      {R"({"input":"a","conversation":"conv_1"})", "conversation"},
      {R"({"input":"a","reasoning":{"effort":"high"}})", "reasoning.effort"},
      {R"({"input":"a","include":["file_search_call.results"]})", "include"},
      {R"({"input":"a","text":{"format":{"type":"grammar"}}})", "text.format.type"},
      {R"({"input":"a","text":{"format":{"type":"json_schema","name":"n"}}})", "text.format.schema"},
      {R"({"input":"a","text":{"verbosity":"low"}})", "text.verbosity"},
      {R"({"input":"a","max_output_tokens":0})", "max_output_tokens"},
      {R"({"input":"a","temperature":3})", "temperature"},
      {R"({"input":"a","metadata":{"a":1}})", "metadata"},
      {R"({"input":"a","messages":[]})", "messages"},
      {R"({"input":"a","model":"other"})", "model"},
      {R"({"input":[]})", "input"},
      {R"({})", "input"},
      {R"({"input":[{"type":"reasoning","summary":[]}]})", "input[0].type"},
      {R"({"input":[{"type":"function_call_output","call_id":"c","output":"x"}]})", "input"},
      {R"({"input":[{"type":"function_call","call_id":"c","name":"n","arguments":"["}]})", "input[0].arguments"},
      {R"({"input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]})", "input[0].content[0].type"},
      {R"({"input":[{"role":"robot","content":"x"}]})", "input[0].role"},
      {R"({"input":"a","previous_response_id":"resp_none"})", "previous_response_id"},
  };
  for (const auto& [body, param] : refused) {
    const RawAnswer answer = post("/v1/responses", body);
    EXPECT_TRUE(answer.status == 400 || answer.status == 404) << body << answer.body;
    EXPECT_EQ(answer.json()["error"]["param"], param) << body << answer.body;
  }
  EXPECT_TRUE(inference_.requests().empty());
  const std::string job = post("/v1/jobs", R"({"prompt":"a"})").json()["id"];
  EXPECT_EQ(get("/v1/responses/" + job).status, 404) << "a job is no response";
}

TEST_F(ResponsesTest, AStructureIsOfTheSchemaInTextFormat) {
  create({{"input", "a"},
          {"text", {{"format", {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"type", "boolean"}}}}}}}});
  EXPECT_EQ(inference_.requests().back().sampling.grammar, R"({"json_schema":{"type":"boolean"}})");
  const json refused = create(
      {{"input", "a"}, {"text", {{"format", {{"type", "json_schema"}, {"name", "n"}, {"schema", {{"type", "odd"}}}}}}}},
      400);
  EXPECT_EQ(refused["error"]["param"], "text.format.schema.type");
}

// A service with keys: a response belongs to the key that asked for it, and so does its conversation.
class OwnedResponsesTest : public ResponsesTest {
 protected:
  void SetUp() override {
    std::ofstream(keys_) << "alice-key\nbob-key\n";
    options_.api_keys_file = keys_;
    ResponsesTest::SetUp();
  }
  void TearDown() override {
    ResponsesTest::TearDown();
    std::filesystem::remove(keys_);
  }
  static std::string as(const std::string& name) { return "Authorization: Bearer " + name + "-key\r\n"; }

  const std::string keys_ = ::testing::TempDir() + "/response-keys-" + std::to_string(getpid());
};

TEST_F(OwnedResponsesTest, AnotherKeysResponsesAreNotThere) {
  for (const bool background : {false, true}) {
    const std::string ask = to_text(json{{"input", "abc"}, {"background", background}});
    const std::string id = post("/v1/responses", ask, as("alice")).json()["id"];
    const std::string path = "/v1/responses/" + id;
    EXPECT_TRUE(eventually([&] { return get(path, as("alice")).json()["status"] == "completed"; }));
    for (const std::string& place : {path, path + "/input_items", path + "?stream=true"})
      EXPECT_EQ(get(place, as("bob")).status, 404) << place;
    EXPECT_EQ(post(path + "/cancel", "", as("bob")).status, 404);
    const std::string remove = "DELETE " + path + " HTTP/1.1\r\nHost: x\r\n";
    EXPECT_EQ(client().request(remove + as("bob") + "\r\n").status, 404);
    const std::string next = to_text(json{{"input", "more"}, {"previous_response_id", id}});
    EXPECT_EQ(post("/v1/responses", next, as("bob")).status, 404);
    EXPECT_EQ(post("/v1/responses", next, as("alice")).status, 200);
    EXPECT_EQ(client().request(remove + as("alice") + "\r\n").status, 200);
  }
}

class ResponseTools : public ResponsesTest {
 protected:
  const TextCodec& codec() const override { return tool_codec_; }
  static json asked(json more) {
    json body = {{"input", "abc"}};
    body["tools"] = json::array({{{"type", "function"}, {"name", "look"}, {"parameters", {{"type", "object"}}}}});
    body.update(more);
    return body;
  }
  ToolCodec tool_codec_;
};

constexpr const char* kCallsText =
    "I look. <tool_call>{\"name\": \"look\", \"arguments\": {\"z\": 1}}</tool_call>\n"
    "<tool_call>{\"name\": \"look\", \"arguments\": {}}</tool_call>";

TEST_F(ResponseTools, CallsAreItemsBehindWhatIsSaidAndTheConversationGoesOnWithTheirOutputs) {
  inference_.set({.text = kCallsText});
  const json made = create(asked(json::object()));
  const json& output = made["output"];
  ASSERT_EQ(output.size(), 3u) << made;
  EXPECT_EQ(output[0]["content"][0]["text"], "I look.");
  EXPECT_EQ(output[1]["type"], "function_call");
  EXPECT_EQ(output[1]["name"], "look");
  EXPECT_EQ(output[1]["arguments"], R"({"z": 1})");
  EXPECT_NE(output[1]["call_id"], output[2]["call_id"]);
  EXPECT_NE(output[1]["id"], output[2]["id"]);
  EXPECT_EQ(made["status"], "completed");
  EXPECT_EQ(made["tools"][0]["name"], "look");
  EXPECT_EQ(shown(made["id"]), made);

  inference_.set({.text = "Seen."});
  json outputs = json::array();
  for (const size_t call : {1, 2})
    outputs.push_back({{"type", "function_call_output"}, {"call_id", output[call]["call_id"]}, {"output", "sky"}});
  const json second = create(asked({{"input", outputs}, {"previous_response_id", made["id"]}}));
  EXPECT_EQ(second["output"][0]["content"][0]["text"], "Seen.");
  const std::string prompt = last_prompt();
  EXPECT_NE(prompt.find("<user>abc<assistant>I look.[{"), std::string::npos) << prompt;
  EXPECT_NE(prompt.find("<tool>sky(look)<tool>sky(look)<assistant>"), std::string::npos) << prompt;
  const json items = get("/v1/responses/" + second["id"].get<std::string>() + "/input_items?order=asc").json()["data"];
  ASSERT_EQ(items.size(), 6u) << items;
  EXPECT_EQ(items[2], output[1]);
  EXPECT_EQ(items[4]["output"], "sky");
  const json stranger = json::array({{{"type", "function_call_output"}, {"call_id", "call_x"}, {"output", "sky"}}});
  EXPECT_EQ(create(asked({{"input", stranger}, {"previous_response_id", made["id"]}}), 400)["error"]["param"], "input");
}

TEST_F(ResponseTools, AStreamHasTheItemsOfTheWholeInBothWays) {
  inference_.set({.text = kCallsText});
  for (const bool background : {false, true}) {
    const json body = asked({{"stream", true}, {"background", background}, {"tool_choice", "auto"}});
    const std::vector<NamedEvent> events = named_events(post("/v1/responses", to_text(body)).body);
    json done = json::array();
    std::vector<std::string> grown;
    for (size_t i = 0; i < events.size(); ++i) {
      const json& data = events[i].data;
      EXPECT_EQ(data["sequence_number"], i);
      if (events[i].name == "response.output_item.added") grown.emplace_back();
      if (data.contains("delta")) grown.at(data["output_index"].get<size_t>()) += data["delta"].get<std::string>();
      if (events[i].name == "response.output_item.done") done.push_back(data["item"]);
      if (events[i].name == "response.function_call_arguments.done") {
        EXPECT_EQ(data["arguments"], grown.at(data["output_index"].get<size_t>()));
      }
    }
    ASSERT_EQ(events.back().name, "response.completed");
    const json& response = events.back().data["response"];
    EXPECT_EQ(response["output"], done);
    EXPECT_EQ(shown(response["id"]), response);
    EXPECT_EQ(grown, (std::vector<std::string>{"I look.", R"({"z": 1})", "{}"}));
  }
}

TEST_F(ResponseTools, AChoiceOfToolsIsAsInChats) {
  const json named = {{"type", "function"}, {"name", "look"}};
  inference_.set({.text = R"(<tool_call>{"name": "look", "arguments": {}}</tool_call>)"});
  const json made = create(asked({{"tool_choice", named}, {"parallel_tool_calls", false}}));
  EXPECT_FALSE(inference_.requests().back().sampling.grammar.empty()) << "a named tool is called";
  EXPECT_EQ(made["output"].size(), 1u);
  EXPECT_EQ(made["output"][0]["type"], "function_call");
  EXPECT_EQ(made["tool_choice"], named);
  EXPECT_EQ(made["parallel_tool_calls"], false);
  const json none = create(asked({{"tool_choice", "none"}}));
  EXPECT_EQ(none["output"][0]["type"], "message");
  EXPECT_EQ(create(asked({{"tool_choice", {{"type", "function"}, {"name", "no"}}}}), 400)["error"]["param"],
            "tool_choice.name");
}

TEST_F(ResponseTools, BesideToolsAnAnswerIsOfTheStructureOrCalls) {
  const auto grammar_of = [&](const json& more) {
    json fields = {{"text", {{"format", {{"type", "json_object"}}}}}};
    fields.update(more);
    create(asked(fields));
    return inference_.requests().back().sampling.grammar;
  };
  const std::string structure = R"({"json_object":true})";
  EXPECT_EQ(grammar_of({{"tool_choice", "none"}}), structure);
  const std::string either = grammar_of(json::object()), calls = grammar_of({{"tool_choice", "required"}});
  EXPECT_TRUE(either.starts_with("{\"either\"") && either.ends_with("," + structure + "]}")) << either;
  EXPECT_NE(either.find(calls), std::string::npos) << calls;
}

TEST_F(GatewayTest, WithoutAJobStoreAResponseIsAnsweredAndNotKept) {
  const json made = post("/v1/responses", R"({"input":"abc"})").json();
  EXPECT_EQ(made["output"][0]["content"][0]["text"], "Hello");
  EXPECT_EQ(made["store"], false);
  EXPECT_EQ(post("/v1/responses", R"({"input":"abc","background":true})").json()["error"]["param"], "background");
  EXPECT_EQ(post("/v1/responses", R"({"input":"a","previous_response_id":"resp_1"})").json()["error"]["param"],
            "previous_response_id");
  EXPECT_EQ(get("/v1/responses/resp_1").json()["error"]["code"], "unsupported_parameter");
}

}  // namespace
}  // namespace runahead
