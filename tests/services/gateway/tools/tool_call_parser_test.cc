#include "services/gateway/tools/tool_call_parser.h"

#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"

namespace runahead {
namespace {

using Kind = ToolEvent::Kind;
using Events = std::vector<ToolEvent>;

ToolReading reading(ToolFormat format, bool certain = false) {
  return {format, certain, {{"look", {"where"}}, {"add", {}}}};
}

// Neighbours that were cut are one again.
void join(Events& events, Events more) {
  for (ToolEvent& event : more) {
    const bool goes_on = !events.empty() && events.back().kind == event.kind && event.kind != Kind::kCall;
    if (goes_on) events.back().text += event.text;
    else events.push_back(std::move(event));
  }
}

Events read(const ToolReading& how, std::string_view text, const std::vector<size_t>& cuts = {}) {
  ToolCallParser parser(how);
  Events events;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    join(events, parser.push(text.substr(begin, cut - begin)));
    begin = cut;
  }
  join(events, parser.push(text.substr(begin)));
  join(events, parser.flush());
  return events;
}

Events text(std::string said) { return {{Kind::kText, std::move(said)}}; }
Events call(std::string name, std::string arguments) {
  return {{Kind::kCall, std::move(name)}, {Kind::kArguments, std::move(arguments)}};
}
Events operator+(Events a, Events b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Case {
  ToolFormat format;
  std::string text;
  Events events;
};

// Of one call, as it is written and as its arguments are.
const std::string kLook = R"({"name": "look", "arguments": {"where": "a}\"<b"}})", kWhere = R"({"where": "a}\"<b"})";

std::vector<Case> hermes_cases() {
  const auto hermes = ToolFormat::kHermes;
  const std::string &look = kLook, &where = kWhere;
  return {
      {hermes, "Only text, <b> and {\"a\": 1}.\n", text("Only text, <b> and {\"a\": 1}.\n")},
      {hermes, "", {}},
      {hermes, "<tool_call>\n" + look + "\n</tool_call>", call("look", where)},
      {hermes, " Let me see.\n\n<tool_call>" + look + "</tool_call>\n", text(" Let me see.") + call("look", where)},
      {hermes,
       "<tool_call>" + look + "</tool_call>\n<tool_call>\n{\"arguments\":{},\"name\":\"add\"}</tool_call> Done. ",
       call("look", where) + call("add", "{}") + text("Done. ")},
      {hermes, "<tool_call>\n[" + look + ", {\"name\":\"add\"}]\n</tool_call>",
       call("look", where) + call("add", "{}")},
      {hermes, "<tool_call>" + look, call("look", where)},  // what closes it is missing
      {hermes, R"(<tool_call>{"name": "add", "arguments": "{\"x\": 1}"}</tool_call>)", call("add", "{\"x\": 1}")},
  };
}

// What is malformed is content, to the byte.
std::vector<Case> malformed_cases() {
  const auto hermes = ToolFormat::kHermes;
  const std::string &look = kLook, &where = kWhere;
  return {
      {hermes, "a <tool_call>{\"name\": \"look\", \"arguments\": {\"where\": 1}</tool_call> b",
       text("a <tool_call>{\"name\": \"look\", \"arguments\": {\"where\": 1}</tool_call> b")},
      {hermes, "<tool_call>look()</tool_call>", text("<tool_call>look()</tool_call>")},
      {hermes, "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
       text("<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>")},
      {hermes, R"(<tool_call>{"name": "look", "arguments": 3}</tool_call>)",
       text(R"(<tool_call>{"name": "look", "arguments": 3}</tool_call>)")},
      {hermes, R"(<tool_call>{"name": "look", "arguments": {"a": tru}}</tool_call>)",
       text(R"(<tool_call>{"name": "look", "arguments": {"a": tru}}</tool_call>)")},
      {hermes, "<tool_call>{\"name\": \"look\", \"argum", text("<tool_call>{\"name\": \"look\", \"argum")},
      {hermes, "<tool_call>no <tool_call>" + look + "</tool_call>", text("<tool_call>no") + call("look", where)},
      {hermes, "<<tool_call>" + look + "</tool_cal", text("<") + call("look", where) + text("</tool_cal")},
      {hermes, "x <tool_", text("x <tool_")},
  };
}

std::vector<Case> llama_cases() {
  const auto llama = ToolFormat::kLlama;
  return {
      {llama, R"({"name": "look", "parameters": {"where": "x"}})", call("look", R"({"where": "x"})")},
      {llama, "\n<|python_tag|>{\"type\": \"function\", \"name\": \"add\", \"parameters\": {}}", call("add", "{}")},
      {llama, R"({"name":"add","parameters":{}}; {"name":"look","parameters":{"where":""}})",
       call("add", "{}") + call("look", R"({"where":""})")},
      {llama, R"({"answer": {"name": "look"}} as JSON)", text(R"({"answer": {"name": "look"}} as JSON)")},
      {llama, R"(So: {"name": "look", "parameters": {}})", text(R"(So: {"name": "look", "parameters": {}})")},
      {llama, "<|python_tag|>search.call(query=\"x\")", text("<|python_tag|>search.call(query=\"x\")")},
  };
}

std::vector<Case> mistral_cases() {
  const auto mistral = ToolFormat::kMistral;
  const std::string &look = kLook, &where = kWhere;
  return {
      {mistral, "[TOOL_CALLS] [" + look + R"(, {"name": "add", "arguments": {}, "id": "abcdefghi"}])",
       call("look", where) + call("add", "{}")},
      {mistral, "Well.[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {}}]", text("Well.") + call("add", "{}")},
      {mistral, "[TOOL_CALLS][" + look + ", {\"name\": 3}] x", call("look", where) + text(", {\"name\": 3}] x")},
      {mistral, "[TOOL_CALLS]{}", text("[TOOL_CALLS]{}")},
      {mistral, "[TOOL] [TOOL_", text("[TOOL] [TOOL_")},
  };
}

std::vector<Case> mistral_args_cases() {
  const auto args = ToolFormat::kMistralArgs;
  return {
      {args, R"([TOOL_CALLS]look[ARGS]{"where": "}"}[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{})",
       call("look", R"({"where": "}"})") + call("add", "{}")},
      {args, "Well.\n[TOOL_CALLS]add[ARGS] {}", text("Well.") + call("add", "{}")},
      {args, "[TOOL_CALLS]other[ARGS]{}", text("[TOOL_CALLS]other[ARGS]{}")},
      {args, "[TOOL_CALLS]look and [ARGS]", text("[TOOL_CALLS]look and [ARGS]")},
      {args, "[TOOL_CALLS]look[ARGS]\"x\"", text("[TOOL_CALLS]look[ARGS]\"x\"")},
      {args, "[TOOL_CALLS]look[ARGS]{\"a\": 1", text("[TOOL_CALLS]look[ARGS]{\"a\": 1")},
      {args, "[TOOL_CALLS][ARGS]{}", text("[TOOL_CALLS][ARGS]{}")},
      {args, "[TOOL_CALLS]look[CALL_[ARGS]{}", text("[TOOL_CALLS]look[CALL_[ARGS]{}")},
  };
}

std::vector<Case> xml_cases() {
  const auto xml = ToolFormat::kXml;
  return {
      {xml,
       "I look.\n<tool_call>\n<function=look>\n<parameter=where>\n12\n</parameter>\n<parameter=n>\n[1, {\"a\": "
       "2}]\n</parameter>\n"
       "<parameter=s>\nplain\ntext\n</parameter>\n</function>\n</tool_call>",
       text("I look.") + call("look", R"({"where":"12","n":[1,{"a":2}],"s":"plain\ntext"})")},
      {xml, "<tool_call><function=add></function></tool_call>.", call("add", "{}") + text(".")},
      {xml, "<tool_call><function=look><parameter=where>f()</function>g</parameter></function></tool_call>",
       call("look", R"({"where":"f()</function>g"})")},
      {xml, "<tool_call><function=add><parameter=x>\n\"a</parameter>\"\n</parameter></function></tool_call>",
       call("add", R"({"x":"a</parameter>"})")},
      {xml, "<tool_call><function=other></function></tool_call>",
       text("<tool_call><function=other></function></tool_call>")},
      {xml, "<tool_call>{\"name\": \"look\"}</tool_call>", text("<tool_call>{\"name\": \"look\"}</tool_call>")},
  };
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& some :
       {hermes_cases(), malformed_cases(), llama_cases(), mistral_cases(), mistral_args_cases(), xml_cases()})
    all.insert(all.end(), some.begin(), some.end());
  return all;
}

TEST(ToolCallParser, TellsCallsFromContent) {
  for (const Case& one : cases()) EXPECT_EQ(read(reading(one.format), one.text), one.events) << one.text;
}

TEST(ToolCallParser, AnyCutGivesTheSame) {
  std::mt19937 random(7);
  for (const Case& one : cases()) {
    std::vector<size_t> all;
    for (size_t at = 1; at < one.text.size(); ++at) {
      EXPECT_EQ(read(reading(one.format), one.text, {at}), one.events) << one.text << " cut at " << at;
      all.push_back(at);
    }
    EXPECT_EQ(read(reading(one.format), one.text, all), one.events) << one.text;
  }
  // And of any text out of what calls are made of.
  const std::vector<std::string> parts = {"<tool_call>",
                                          "</tool_call>",
                                          "{\"name\": \"look\", \"arguments\": {",
                                          "}",
                                          "}",
                                          "\"",
                                          "[TOOL_CALLS]",
                                          "[",
                                          "]",
                                          ",",
                                          " ",
                                          "\n",
                                          "{",
                                          "<function=add>",
                                          "</function>",
                                          "<parameter=where>",
                                          "</parameter>",
                                          "<|python_tag|>",
                                          "x",
                                          "[ARGS]",
                                          "add",
                                          "[CALL_ID]",
                                          "\\",
                                          "{\"name\":\"add\"}"};
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (size_t n = random() % 12; n > 0; --n) text += parts[random() % parts.size()];
    std::vector<size_t> cuts;
    for (size_t at = 1; at < text.size(); ++at)
      if (random() % 3 == 0) cuts.push_back(at);
    for (const ToolFormat format : kToolFormats) {
      const Events whole = read(reading(format), text);
      ASSERT_EQ(read(reading(format), text, cuts), whole) << text;
      for (const ToolEvent& event : whole)
        if (event.kind == Kind::kArguments) {
          ASSERT_TRUE(nlohmann::json::accept(event.text)) << text;
        }
    }
  }
}

TEST(ToolCallParser, NoCallNestsDeeperThanARequestMay) {
  const auto nested = [](int depth) {
    const auto size = static_cast<size_t>(depth);
    return std::string(size, '[') + std::string(size, ']');
  };
  const auto hermes = [&](int depth) {
    return R"(<tool_call>{"name": "add", "arguments": {"x": )" + nested(depth) + "}}</tool_call>";
  };
  const int most = limits::kJsonDepthMax - 1;
  EXPECT_EQ(read(reading(ToolFormat::kHermes), hermes(most)), call("add", "{\"x\": " + nested(most) + "}"));
  EXPECT_EQ(read(reading(ToolFormat::kHermes), hermes(most + 1)), text(hermes(most + 1)));
  EXPECT_EQ(read(reading(ToolFormat::kHermes), hermes(100'000)), text(hermes(100'000)));
  const auto xml = [&](int depth) {
    return "<tool_call><function=add><parameter=x>" + nested(depth) + "</parameter></function>";
  };
  EXPECT_EQ(read(reading(ToolFormat::kXml), xml(most)), call("add", "{\"x\":" + nested(most) + "}"));
  EXPECT_EQ(read(reading(ToolFormat::kXml), xml(100'000)), call("add", "{\"x\":\"" + nested(100'000) + "\"}"));
}

TEST(ToolCallParser, WithoutACallNothingIsLost) {
  std::mt19937 random(3);
  const std::string letters = "<tool_call>[TOOL_CALLS]{}\"|python_tag| \n,:a";
  for (int round = 0; round < 4000; ++round) {
    std::string said;
    for (size_t n = random() % 40; n > 0; --n) said += letters[random() % letters.size()];
    for (const ToolFormat format : kToolFormats)
      ASSERT_EQ(read(reading(format), said), said.empty() ? Events{} : text(said));
  }
}

TEST(ToolCallParser, WhatIsCertainComesAsItIsWritten) {
  ToolCallParser parser(reading(ToolFormat::kHermes, true));
  EXPECT_EQ(parser.push("<tool_call>\n{\"name\": \"lo"), Events{});
  EXPECT_EQ(parser.push("ok\", \"arguments\": {"), call("look", "{"));
  EXPECT_EQ(parser.push("\"where\": \"h"), (Events{{Kind::kArguments, "\"where\": \"h"}}));
  ToolCallParser cut = parser;
  EXPECT_EQ(cut.flush(), Events{});  // it stays a beginning
  EXPECT_EQ(parser.push("ere\"}}\n</tool_"), (Events{{Kind::kArguments, "ere\"}"}}));
  EXPECT_EQ(parser.push("call>\n<tool_call>"), Events{});
  EXPECT_EQ(parser.push("{\"name\": \"add\", \"arguments\": {}}"), call("add", "{}"));
  EXPECT_EQ(parser.flush(), Events{});
  for (const Case& one : cases())
    if (one.events.size() >= 2 && one.events[0].kind == Kind::kCall) {
      EXPECT_EQ(read(reading(one.format, true), one.text), one.events) << one.text;
    }
}

TEST(ToolCallParser, ItsReadingIsKeptAsJson) {
  for (const ToolFormat format : kToolFormats)
    EXPECT_EQ(tool_reading_of(to_json(reading(format, true))), reading(format, true));
  EXPECT_EQ(tool_reading_of(nullptr), std::nullopt);
  EXPECT_EQ(tool_reading_of({{"format", "other"}}), std::nullopt);
}

}  // namespace
}  // namespace runahead
