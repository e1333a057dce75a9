#include "model/chat_template/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/limits.h"
#include "model/weights/gguf.h"
#include "tests/support/default_model.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;

const std::filesystem::path kGolden = std::filesystem::path(RUNAHEAD_SOURCE_DIR) / "tests/golden/chat_templates";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

const ordered_json& golden_templates() {
  static const ordered_json kFixture = ordered_json::parse(read_file(kGolden / "expected.json"));
  return kFixture;
}

std::tm fixed_date() {  // make.py's NOW
  std::tm date{};
  date.tm_year = 126;
  date.tm_mon = 10;
  date.tm_mday = 24;
  date.tm_hour = 7;
  date.tm_min = 5;
  date.tm_sec = 9;
  date.tm_wday = 2;
  date.tm_yday = 327;
  return date;
}

ChatInput make_input(const ordered_json& messages) {
  ChatInput input;
  input.messages = messages;
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.now = fixed_date();
  return input;
}

ChatInput make_case(const ordered_json& json) {
  ChatInput input = make_input(json["messages"]);
  if (json.contains("tools")) input.tools = json["tools"];
  if (json.contains("variables")) input.variables = json["variables"];
  input.add_generation_prompt = json.value("add_generation_prompt", true);
  if (!json.value("date", true)) input.now.reset();
  return input;
}

Result<std::string> render(const std::string& source, const ChatInput& input) {
  const ChatTemplate parsed = TRY(ChatTemplate::parse(source));
  return parsed.render(input);
}

// The same text; or, where jinja2 fails, an error too; where the template refuses, with the template's own words.
void expect_same(const ordered_json& expected, const Result<std::string>& actual, const std::string& where) {
  if (expected.contains("text")) {
    ASSERT_TRUE(actual) << where << ": " << actual.error().message;
    EXPECT_EQ(*actual, expected["text"].get<std::string>()) << where;
    return;
  }
  ASSERT_FALSE(actual) << where << " should fail, but gives: " << *actual;
  if (!expected.contains("refused")) return;
  EXPECT_EQ(actual.error().code, ErrorCode::kInvalidArgument) << where;
  EXPECT_NE(actual.error().message.find(expected["refused"].get<std::string>()), std::string::npos) << where;
}

TEST(ChatTemplateGolden, PublishedTemplatesRenderAsPythonDoes) {
  const ordered_json inputs = ordered_json::parse(read_file(kGolden / "inputs.json"));
  std::map<std::string, ChatTemplate> templates;
  for (const auto& entry : golden_templates()["renders"]) {
    const std::string file = entry["template"];
    if (!templates.contains(file)) {
      auto parsed = ChatTemplate::parse(read_file(kGolden / "templates" / file));
      ASSERT_TRUE(parsed) << file << ": " << parsed.error().message;
      templates.emplace(file, *parsed);
    }
    const std::string name = entry["input"];
    expect_same(entry, templates.at(file).render(make_case(inputs.at(name))), file + " with '" + name + "'");
  }
  EXPECT_GE(templates.size(), 19u);
  EXPECT_GE(golden_templates()["renders"].size(), 600u);
}

TEST(ChatTemplateGolden, ExpressionsAndStatementsMeanWhatTheyMeanInPython) {
  ChatInput input = make_input(ordered_json::array());
  input.variables = ordered_json::parse(read_file(kGolden / "variables.json"));
  for (const auto& entry : golden_templates()["expressions"]) {
    const std::string source = entry["source"];
    expect_same(entry, render(source, input), source);
  }
  EXPECT_GE(golden_templates()["expressions"].size(), 150u);
}

TEST(ChatTemplate, TheModelFileCarriesTheTemplateOfTheGoldenTest) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  auto file = Gguf::open(test::default_model());
  ASSERT_TRUE(file) << file.error().message;
  const auto source = file->str("tokenizer.chat_template");
  ASSERT_TRUE(source);
  EXPECT_EQ(*source, read_file(kGolden / "templates/smollm2.jinja"));
}

TEST(ChatTemplate, PartsAreJoinedForTemplatesThatKnowStringsOnly) {
  const ordered_json messages = ordered_json::parse(
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])");
  const auto plain = ChatTemplate::parse("{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}");
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->accepts_parts());
  EXPECT_EQ(plain->render(make_input(messages)).value(), "[a\nb]");
  const auto image = ordered_json::parse(R"([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])");
  EXPECT_EQ(plain->render(make_input(image)).error().code, ErrorCode::kUnsupported);

  const auto parts = ChatTemplate::parse("{% for p in messages[0].content %}{{ p.text if p is mapping }};{% endfor %}");
  ASSERT_TRUE(parts);
  EXPECT_TRUE(parts->accepts_parts());
  EXPECT_EQ(parts->render(make_input(messages)).value(), "a;b;");
}

TEST(ChatTemplate, OneTemplateRendersOnSeveralThreads) {
  const auto parsed = ChatTemplate::parse(
      "{% macro m(x) %}<{{ x }}>{% endmacro %}{% for m_ in messages %}{{ m(m_.content) }}{% endfor %}");
  ASSERT_TRUE(parsed);
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string word = "w" + std::to_string(t);
      const auto messages = ordered_json::array({{{"role", "user"}, {"content", word}}});
      for (int i = 0; i < 200; ++i) right += parsed->render(make_input(messages)).value() == "<" + word + ">";
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 800);
}

TEST(ChatTemplate, ErrorsNameTheLineAndTheReason) {
  const auto syntax = ChatTemplate::parse("line one\n{{ 1 + }}");
  ASSERT_FALSE(syntax);
  EXPECT_EQ(syntax.error().code, ErrorCode::kInvalidModel);
  EXPECT_NE(syntax.error().message.find("line 2"), std::string::npos) << syntax.error().message;

  const auto runtime = render("a\nb\n{{ messages[0].content.nothing + 'x' }}",
                              make_input(ordered_json::parse(R"([{"role": "user", "content": "t"}])")));
  ASSERT_FALSE(runtime);
  EXPECT_EQ(runtime.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(runtime.error().message.find("line 3"), std::string::npos) << runtime.error().message;
  EXPECT_NE(runtime.error().message.find("has no attribute 'nothing'"), std::string::npos);

  const ChatInput none = make_input(ordered_json::array());
  EXPECT_EQ(render("{% include 'x' %}", none).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(render("{{ 'a' | urlize }}", none).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(render("{{ 'a' is filter }}", none).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(render("{{ '%s' % 1 }}", none).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(render("{{ 9223372036854775807 + 1 }}", none).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(render("\xff", none).error().code, ErrorCode::kInvalidModel);
}

TEST(ChatTemplate, BadConversationsAreRefusedWithTheFieldThatIsMeant) {
  const auto parsed = ChatTemplate::parse("x");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->render(make_input(ordered_json::object())).error().param, "messages");
  EXPECT_EQ(parsed->render(make_input(ordered_json::array({1}))).error().param, "messages");
  ChatInput input = make_input(ordered_json::array());
  input.tools = "t";
  EXPECT_EQ(parsed->render(input).error().param, "tools");
  input.tools = nullptr;
  input.variables = ordered_json::array();
  EXPECT_EQ(parsed->render(input).error().param, "chat_template_kwargs");
  const auto bad_utf8 = ordered_json::array({{{"role", "user"}, {"content", "\xc3("}}});
  EXPECT_EQ(parsed->render(make_input(bad_utf8)).error().code, ErrorCode::kInvalidArgument);
  ordered_json deep = "x";
  for (int i = 0; i < 1000; ++i) deep = ordered_json::array({deep});
  const auto deep_content = ordered_json::array({{{"role", "user"}, {"name", deep}}});
  EXPECT_EQ(parsed->render(make_input(deep_content)).error().code, ErrorCode::kInvalidArgument);
}

// Each of these would crash, hang or take all memory without its limit.
TEST(ChatTemplate, HostileTemplatesEndWithAnError) {
  const std::string loop = "{% for i in range(100000) %}";
  const auto repeat = [](const std::string& part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
  };
  const std::string doubled =
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
  const std::string sources[] = {
      loop + loop + loop + "{% endfor %}{% endfor %}{% endfor %}",
      loop + "{{ 'x' * 10000 }}{% endfor %}",
      "{{ 'x' * 9000000000 }}",
      "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(999) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}",
      doubled + "{{ ns.l }}",
      doubled + "{{ ns.l == ns.l }}",
      doubled + "{{ ns.l | tojson }}",
      "{% set ns = namespace(f=[1]) %}" + loop + "{% set ns.f = [ns.f.index] %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ ('ab' * 1000000).replace('a', 'x' * 1000000) }}",
      "{{ ('a' * 30000000).find('a' * 15000000 ~ 'b') }}",
      "{{ ['x' * 1000000] * 1000 | join }}{{ (['x' * 1000000] * 1000) | join }}",
      "{{ 'x' | center(99999999999) }}",
      "{{ [1] | batch(99999999999, 0) | list }}",
      "{{ [1] | tojson(indent=99999999999) }}",
      "{{ 2 ** 99999999999 }}",
      "{{ range(99999999999) }}",
      "{{ " + repeat("(", 10000) + "1" + repeat(")", 10000) + " }}",
      "{{ " + repeat("[", 10000) + repeat("]", 10000) + " }}",
      "{{ " + repeat("-", 10000) + "1 }}",
      "{{ " + repeat("not ", 10000) + "1 }}",
      "{{ x" + repeat(".x", 10000) + " }}",
      "{{ 1" + repeat(" | abs", 10000) + " }}",
      "{{ 1 " + repeat(" if 1 else 1", 10000) + " }}",
      repeat("{% if 1 %}", 10000) + repeat("{% endif %}", 10000),
      repeat("{% for i in [1] %}", 200) + repeat("{% endfor %}", 200),
      "{% set " + repeat("(", 10000) + "a" + repeat(")", 10000) + " = 1 %}",
      std::string(limits::kTemplateBytesMax + 1, 'x'),
  };
  for (const std::string& source : sources) {
    const auto start = std::chrono::steady_clock::now();
    const auto result = render(source, make_input(ordered_json::array()));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(result) << source.substr(0, 100);
    EXPECT_LT(seconds.count(), 20.0) << source.substr(0, 100);  // 10 M steps take about a second; sanitizers ten times
  }
}

TEST(ChatTemplate, LongChainsAreNotDeepTrees) {
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_EQ(render(sum + " }}", make_input(ordered_json::array())).value(), "5001");
  std::string text = "{{ ''";
  for (int i = 0; i < 5000; ++i) text += " ~ 'a'";
  EXPECT_EQ(render(text + " }}", make_input(ordered_json::array())).value(), std::string(5000, 'a'));
}

// Cycles through namespaces, loops and macros must not leak (the address sanitizer looks).
TEST(ChatTemplate, CyclesAreFreed) {
  const std::string source =
      "{% set ns = namespace() %}{% set ns.self = ns %}{% macro m() %}{{ ns.self.m is callable }}{% endmacro %}"
      "{% set ns.m = m %}{% for i in [1] recursive %}{% set ns.loop = loop %}{% endfor %}"
      "{% set other = namespace(ns=[ns]) %}{% set ns.other = other %}{{ m() }}";
  EXPECT_EQ(render(source, make_input(ordered_json::array())).value(), "True");
}

TEST(ChatTemplate, AThousandMessagesStayFarFromTheLimits) {
  ordered_json messages = ordered_json::array();
  for (int i = 0; i < 1000; ++i) {
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(1000, 'x') + " \n"}});
  }
  for (const char* file : {"llama-3.2.jinja", "qwen3.jinja", "gemma-3.jinja", "mistral-v0.3.jinja", "smollm3.jinja"}) {
    const auto text = render(read_file(kGolden / "templates" / file), make_input(messages));
    ASSERT_TRUE(text) << file << ": " << text.error().message;
    EXPECT_GT(text->size(), 1'000'000u) << file;
  }
}

}  // namespace
}  // namespace runahead
