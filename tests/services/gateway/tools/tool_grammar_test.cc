// What a grammar of calls lets a model write is what the parser reads: random walks through one, read by the other.
#include "services/gateway/tools/tool_grammar.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "model/chat_template/chat_template.h"
#include "model/grammar/grammar.h"
#include "model/grammar/grammar_walk.h"
#include "services/gateway/tools/tool_call_parser.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;

const ordered_json kLookSchema = ordered_json::parse(
    R"({"properties":{"where":{"type":"string","maxLength":3},"n":{"type":"integer","minimum":0,"maximum":9}},
        "required":["where","n"],"additionalProperties":false})");

std::vector<GrammarTool> tools(ToolFormat format) {
  ordered_json look = kLookSchema;
  if (format == ToolFormat::kXml) look["properties"]["where"].erase("maxLength");  // no bare text keeps to it
  return {{"look", look, true, "tools[0].function.parameters"},
          {"stop-it", {{"type", "object"}, {"properties", {}}}, false, ""}};
}

// A text of the grammar: mostly the bytes that end it soon, now and then any.
std::string random_text(const std::string& grammar, std::mt19937_64& random) {
  const auto automaton = grammar::compile(grammar);
  EXPECT_TRUE(automaton) << grammar;
  grammar::GrammarWalk walk(*automaton);
  std::string text;
  grammar::GrammarWalk::Place place = walk.start();
  while (text.size() < 3000) {
    if (walk.may_end(place) && (random() % 4 == 0 || text.size() > 300)) return text;
    std::vector<uint8_t> may;
    for (int byte = 0; byte < 256; ++byte)
      if (walk.read(place, static_cast<uint8_t>(byte)) != grammar::GrammarWalk::kNowhere)
        may.push_back(static_cast<uint8_t>(byte));
    if (may.empty()) break;
    uint8_t byte = may[random() % may.size()];
    if (may.back() == 0xFF && random() % 4 == 0) byte = 0xFF;
    if (text.size() > 100 && may.size() > 1)
      for (const uint8_t end : {'"', '}', ']'})
        if (std::ranges::find(may, end) != may.end() && random() % 2 == 0) byte = end;
    std::string more(1, static_cast<char>(byte));
    if (text.size() > 100 && may.size() > 200 && random() % 4 == 0) more = "</parameter>";
    for (const char c : more) place = walk.read(place, static_cast<uint8_t>(c));
    text += more;
  }
  EXPECT_TRUE(walk.may_end(place)) << "no end of " << text;
  return text;
}

// Control tokens as an answer shows them.
std::string shown(std::string text) {
  std::erase(text, grammar::kControlByte);
  return text;
}

struct Read {
  int calls = 0;
  std::string content;
  std::vector<std::string> arguments;
};

Read read(ToolFormat format, const std::string& text) {
  ToolCallParser parser({format, true, {{"look", {}}, {"stop-it", {}}}});
  Read result;
  for (const auto& events : {parser.push(text), parser.flush()})
    for (const ToolEvent& event : events) {
      if (event.kind == ToolEvent::Kind::kText) result.content += event.text;
      if (event.kind == ToolEvent::Kind::kArguments) result.arguments.push_back(event.text);
      if (event.kind == ToolEvent::Kind::kCall) ++result.calls;
    }
  return result;
}

size_t count(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++count;
  return count;
}

// What stands before a call's name in each form.
std::string_view naming(ToolFormat format) {
  return format == ToolFormat::kXml ? "<function=" : format == ToolFormat::kMistralArgs ? "[ARGS]" : "\"name\": \"";
}

TEST(ToolGrammar, AllThatItLetsAModelWriteIsRead) {
  std::mt19937_64 random(21);
  for (const ToolFormat format : kToolFormats)
    for (const bool must_call : {false, true})
      for (const bool many : {false, true}) {
        const auto grammar = tool_grammar(format, tools(format), {.must_call = must_call, .many = many});
        ASSERT_TRUE(grammar) << grammar.error().message;
        int calls = 0;
        for (int round = 0; round < 60; ++round) {
          const std::string written = random_text(*grammar, random), text = shown(written);
          const Read answer = read(format, text);
          calls += answer.calls;
          EXPECT_EQ(answer.calls, count(text, naming(format))) << text;
          EXPECT_EQ(answer.arguments.size(), static_cast<size_t>(answer.calls)) << text;
          for (const std::string& arguments : answer.arguments) {
            EXPECT_TRUE(ordered_json::parse(arguments, nullptr, false).is_object()) << text;
          }
          if (must_call) {
            EXPECT_TRUE(answer.calls >= 1 && answer.content.empty()) << text;
          }
          if (!many) {
            EXPECT_LE(answer.calls, 1) << text;
          }
        }
        EXPECT_GT(calls, 5) << "the walks met none";
      }
}

TEST(ToolGrammar, WhatCannotBeHeld) {
  std::vector<GrammarTool> tools = {{"f",
                                     ordered_json::parse(R"({"properties":{"a":{"type":"number","multipleOf":0.5}}})"),
                                     false, "tools[0].function.parameters"}};
  const auto any_object = tool_grammar(ToolFormat::kHermes, tools, {.must_call = true});
  ASSERT_TRUE(any_object) << any_object.error().message;
  EXPECT_NE(any_object->find("json_object"), std::string::npos);
  tools[0].strict = true;
  const auto refused = tool_grammar(ToolFormat::kHermes, tools, {.must_call = true});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "tools[0].function.parameters.properties.a.multipleOf");
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  const auto as_xml = tool_grammar(ToolFormat::kXml, tools, {.must_call = true});
  ASSERT_FALSE(as_xml);
  EXPECT_EQ(as_xml.error().param, "tools[0].function.parameters.properties.a.multipleOf");
  tools = {{"f", ordered_json::parse(R"({"enum":[1]})"), true, "tools[0].function.parameters"}};
  EXPECT_TRUE(tool_grammar(ToolFormat::kHermes, tools, {.must_call = true}));
}

bool takes(const std::string& grammar, std::string_view text) {
  const auto automaton = grammar::compile(grammar);
  EXPECT_TRUE(automaton) << grammar;
  grammar::GrammarWalk walk(*automaton);
  grammar::GrammarWalk::Place place = walk.start();
  for (const char byte : text) {
    place = walk.read(place, static_cast<uint8_t>(byte));
    if (place == grammar::GrammarWalk::kNowhere) return false;
  }
  return walk.may_end(place);
}

TEST(ToolGrammar, OfXmlKeepsToWhatTheSchemaSays) {
  const ordered_json schema = ordered_json::parse(
      R"({"type":"object","properties":{"where":{"type":"string","description":"d"},"unit":{"type":"string","enum":["C","F"]},
          "days":{"type":"array","items":{"$ref":"#/$defs/day"}}},
          "required":["where","days"],"$defs":{"day":{"type":"integer"}}})");
  const auto grammar = tool_grammar(ToolFormat::kXml, {{{"look", schema, true, "f"}}}, {.must_call = true});
  ASSERT_TRUE(grammar) << grammar.error().message;
  const auto call = [](const std::string& inside) {
    return "<tool_call>\n<function=look>\n" + inside + "</function>\n</tool_call>";
  };
  const auto field = [](const std::string& name, const std::string& value) {
    return "<parameter=" + name + ">\n" + value + "\n</parameter>\n";
  };
  const std::string paris = field("where", "Paris\nor\n</para> not"), days = field("days", "[1, 2]");
  EXPECT_TRUE(takes(*grammar, call(paris + days)));
  EXPECT_TRUE(takes(*grammar, call(paris + field("unit", "C") + days)));
  EXPECT_TRUE(takes(*grammar, call("<parameter=where>\n</parameter>\n" + days))) << "an empty text";
  EXPECT_FALSE(takes(*grammar, call(paris + field("unit", "K") + days)));
  EXPECT_FALSE(takes(*grammar, call(days + paris))) << "another order";
  EXPECT_FALSE(takes(*grammar, call(paris))) << "days are required";
  EXPECT_FALSE(takes(*grammar, call(paris + field("days", "[\"a\"]"))));
  EXPECT_FALSE(takes(*grammar, call(paris + days + field("more", "1"))));
  EXPECT_FALSE(takes(*grammar, call(paris + days) + "."));

  const auto error_of = [](const char* parameters) {
    const auto held =
        tool_grammar(ToolFormat::kXml, {{{"look", ordered_json::parse(parameters), true, "f"}}}, {.must_call = true});
    return held ? "none" : held.error().param;
  };
  EXPECT_EQ(error_of(R"({"properties":{"a":{"type":"string","pattern":"^x$"}}})"), "f.properties.a.pattern");
  EXPECT_EQ(error_of(R"({"properties":{"a":{"type":"string","enum":["x</parameter>"]}}})"), "f.properties.a.enum");
  EXPECT_EQ(error_of(R"({"properties":{"a":{"enum":["x</parameter>"]}}})"), "f.properties.a");
  EXPECT_EQ(error_of(R"({"properties":{"a":{"items":{"const":"</function>"}}}})"), "f.properties.a");
  EXPECT_EQ(error_of(R"({"properties":{"a>b":{"type":"string"}}})"), "f.properties.a>b");
  EXPECT_EQ(error_of(R"({"properties":{},"required":["a"]})"), "f.required");
  EXPECT_EQ(error_of(R"({"properties":{},"minProperties":1})"), "f.minProperties");
  EXPECT_EQ(error_of(R"({"properties":{"a":{"const":1},"b":true}})"), "none");
}

// A tool that is not strict: what cannot be held of it may be anything, the rest is held all the same.
TEST(ToolGrammar, OfXmlThatIsNotStrictHoldsWhatItCan) {
  const ordered_json schema = ordered_json::parse(
      R"({"properties":{"a":{"type":"string","pattern":"^x$"},"n":{"type":"integer"},"b>":{}},
          "required":["a","n","z"],"not":{}})");
  const auto grammar = tool_grammar(ToolFormat::kXml, {{{"f", schema, false, "f"}}}, {.must_call = true});
  ASSERT_TRUE(grammar) << grammar.error().message;
  const std::string begin = "<tool_call>\n<function=f>\n<parameter=a>\nanything\n</parameter>\n<parameter=n>\n",
                    end = "\n</parameter>\n</function>\n</tool_call>";
  EXPECT_TRUE(takes(*grammar, begin + "12" + end));
  EXPECT_FALSE(takes(*grammar, begin + "many" + end));
  const auto open = tool_grammar(ToolFormat::kXml, {{{"f", ordered_json::object(), false, "f"}}}, {.must_call = true});
  ASSERT_TRUE(open);
  EXPECT_FALSE(takes(*open, begin + "many" + end));
  EXPECT_TRUE(takes(*open, "<tool_call>\n<function=f>\n</function>\n</tool_call>"));
}

// response_format beside tools: the answer is of the structure, or calls.
TEST(ToolGrammar, AnAnswerThatDoesNotCallIsOfItsStructure) {
  std::mt19937_64 random(5);
  const std::string otherwise =
      R"({"json_schema":{"type":"object","properties":{"answer":{"type":"integer"}},"required":["answer"]}})";
  for (const ToolFormat format : kToolFormats) {
    const auto grammar = tool_grammar(format, tools(format), {.many = true, .otherwise = otherwise});
    ASSERT_TRUE(grammar) << grammar.error().message;
    int calls = 0, structures = 0;
    for (int round = 0; round < 60; ++round) {
      const std::string text = shown(random_text(*grammar, random));
      const Read answer = read(format, text);
      calls += answer.calls > 0;
      if (answer.calls > 0) {
        EXPECT_EQ(answer.content, "") << text;
      } else {
        ++structures;
        const auto written = ordered_json::parse(answer.content, nullptr, false);
        EXPECT_TRUE(written.is_object() && written["answer"].is_number()) << text;
      }
    }
    EXPECT_TRUE(calls > 5 && structures > 5) << calls << ", " << structures;
    const auto must = tool_grammar(format, tools(format), {.must_call = true, .many = true, .otherwise = otherwise});
    EXPECT_EQ(*must, *tool_grammar(format, tools(format), {.must_call = true, .many = true}));
    EXPECT_FALSE(takes(*must, R"({"answer": 1})"));
  }
}

TEST(ToolFormat, IsFoundInTheTemplate) {
  EXPECT_EQ(tool_format_of("a <tool_call>\\n{..."), ToolFormat::kHermes);
  EXPECT_EQ(tool_format_of("<tool_call>\\n<function=x>\\n<parameter=y>"), ToolFormat::kXml);
  EXPECT_EQ(tool_format_of("{{- \"[TOOL_CALLS][\" }}"), ToolFormat::kMistral);
  EXPECT_EQ(tool_format_of("[TOOL_CALLS]name[ARGS]{}"), ToolFormat::kMistralArgs);
  EXPECT_EQ(tool_format_of("<|start_header_id|> '\"parameters\": '"), ToolFormat::kLlama);
  EXPECT_EQ(tool_format_of("<|im_start|>"), std::nullopt);
}

TEST(ToolFormat, OfPublishedTemplates) {
  using enum ToolFormat;
  const std::map<std::string, std::optional<ToolFormat>> with_tools = {
      {"falcon3", kHermes},       {"llama-3.1", kLlama}, {"llama-3.2", kLlama}, {"mistral-nemo", kMistral},
      {"mistral-v0.3", kMistral}, {"qwen2.5", kHermes},  {"qwen3", kHermes},    {"smollm3", kHermes},
      {"typescript-tools", {}}};  // shows tools, but no form of calls
  const std::filesystem::path folder =
      std::filesystem::path(RUNAHEAD_SOURCE_DIR) / "tests/golden/chat_templates/templates";
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    const auto parsed = ChatTemplate::parse(std::string(std::istreambuf_iterator<char>(file), {}));
    ASSERT_TRUE(parsed) << entry.path();
    const auto expected = with_tools.find(entry.path().stem().string());
    ASSERT_EQ(parsed->accepts_tools(), expected != with_tools.end()) << entry.path();
    if (expected == with_tools.end()) continue;
    ++seen;
    EXPECT_EQ(tool_format_of(parsed->source()), expected->second) << entry.path();
  }
  EXPECT_EQ(seen, 9);
}

}  // namespace
}  // namespace runahead
