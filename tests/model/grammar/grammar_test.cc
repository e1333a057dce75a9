// Grammars against texts that are right and wrong by hand, and masks against the bytes of every token, one by one.
#include "model/grammar/grammar.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/limits.h"
#include "base/utf8.h"
#include "model/grammar/token_masks.h"

namespace runahead::grammar {
namespace {

using nlohmann::json;

std::shared_ptr<const Automaton> compiled(const std::string& grammar) {
  auto automaton = compile(grammar);
  EXPECT_TRUE(automaton) << grammar << ": " << (automaton ? "" : automaton.error().message);
  return automaton ? *automaton : nullptr;
}
std::string of_schema(const std::string& schema) { return R"({"json_schema": )" + schema + "}"; }

bool takes(const std::shared_ptr<const Automaton>& automaton, std::string_view text) {
  GrammarWalk walk(automaton);
  return walk.may_end(walk.read(walk.start(), text));
}

void expect_schema(const std::string& schema, const std::vector<std::string>& right,
                   const std::vector<std::string>& wrong) {
  const auto automaton = compiled(of_schema(schema));
  ASSERT_TRUE(automaton);
  for (const std::string& text : right) EXPECT_TRUE(takes(automaton, text)) << schema << " takes " << text;
  for (const std::string& text : wrong) EXPECT_FALSE(takes(automaton, text)) << schema << " refuses " << text;
}

Error refusal(const std::string& schema) {
  const auto automaton = compile(of_schema(schema));
  EXPECT_FALSE(automaton) << schema;
  return automaton ? Error{} : automaton.error();
}

TEST(Grammar, AnyObject) {
  const auto object = compiled(R"({"json_object": true})");
  for (const char* text : {"{}", R"({"a": 1})", R"({"a":[1,-2.5e10,"x\u00e9\n",null,true,{"b":{}}]})",
                           "{\n  \"k\": [\n    1\n  ]\n}", R"({"\ud83d\ude00": "😀"})", R"({"":0})"})
    EXPECT_TRUE(takes(object, text)) << text;
  for (const char* text : {"", "[]", "1", "{", R"({"a":1,})", R"({"a" 1})", R"({a:1})", R"({"a":01})", R"({"a":1.})",
                           R"({"a":.5})", "{\"a\":\"\n\"}", R"({"a":"\x"})", R"({"a":"\ud83d"})", R"({"a":"\ude00"})",
                           "{\"a\":\"\xC3\"}", "{\"a\":\"\xED\xA0\x80\"}", "{\"a\":\"\xC0\xAF\"}", "{} ", "{}{}"})
    EXPECT_FALSE(takes(object, text)) << text;
}

TEST(Grammar, Objects) {
  expect_schema(R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}},"required":["b","a"],
                    "additionalProperties":false})",
                {R"({"b":1,"a":"x"})", R"({ "b": -10, "a": "" })"},
                {R"({"a":"x","b":1})", R"({"b":1})", R"({"b":1,"a":"x","c":1})", R"({"b":1.5,"a":"x"})", "{}"});
  expect_schema(R"({"properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]})",
                {R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3})"},
                {"{}", R"({"a":1})", R"({"a":1,"c":3})", R"({"b":2,})", R"({,"b":2})", R"({"c":3,"b":2})"});
  expect_schema(R"({"properties":{"a":{"const":1},"b":{"const":2}}})",
                {"{}", R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"}, {R"({"a":1,})", R"({"x":2})"});
  expect_schema(R"({"type":"object","additionalProperties":{"type":"integer"}})", {"{}", R"({"x":1,"y":2})"},
                {R"({"x":"1"})"});
  expect_schema(R"({"properties":{"ab":{"const":1}},"additionalProperties":{"const":2}})",
                {R"({"ab":1})", R"({"a":2})", R"({"abc":2})", R"({"ab":1,"b":2,"":2})", R"({"é":2})", "{}"},
                {R"({"ab":2})", R"({"a":1})", R"({"x":2,"ab":1})", R"({"ab":1,"ab":2})"});
  expect_schema(R"({"type":"object","properties":{},"required":["z"],"additionalProperties":true})",
                {R"({"z":[1]})", R"({"z":1,"y":{}})"}, {"{}", R"({"y":1})"});
  expect_schema(R"({"type":"object","properties":{"q\"\\":{"const":1}}})", {R"({"q\"\\":1})"}, {R"({"q":1})"});
}

TEST(Grammar, Lists) {
  expect_schema(R"({"type":"array","items":{"type":"boolean"}})", {"[]", "[true]", "[true, false]", "[\n  true\n]"},
                {"[,]", "[true,]", "[1]", "[true false]"});
  expect_schema(R"({"items":{"const":1},"minItems":2,"maxItems":3})", {"[1,1]", "[1,1,1]"}, {"[]", "[1]", "[1,1,1,1]"});
  expect_schema(R"({"items":{"const":1},"minItems":2})", {"[1,1]", "[1,1,1,1,1]"}, {"[]", "[1]"});
  expect_schema(R"({"items":{"const":1},"maxItems":0})", {"[]"}, {"[1]"});
  expect_schema(R"({"prefixItems":[{"const":1},{"const":2}],"items":{"const":3}})", {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
                {"[2]", "[1,3]", "[1,2,2]"});
  expect_schema(R"({"prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":2})", {"[1,2]"},
                {"[1]", "[1,2,3]", "[]"});
}

TEST(Grammar, Strings) {
  expect_schema(R"({"type":"string"})", {R"("")", R"("aé😀\"")"}, {"\"", R"("a"b")", "x"});
  expect_schema(R"({"type":"string","minLength":1,"maxLength":3})", {R"("a")", R"("é😀\n")", R"("\ud83d\ude00bc")"},
                {R"("")", R"("abcd")"});
  expect_schema(R"({"type":"string","minLength":2})", {R"("ab")", R"("abcdef")"}, {R"("a")"});
  expect_schema(R"({"pattern":"^[a-c]{2,3}(x|yz)?$"})", {R"("ab")", R"("abcx")", R"("aayz")"},
                {R"("a")", R"("abcd")", R"("abz")", R"("xab")"});
  expect_schema(R"({"pattern":"b+"})", {R"("abbbc")", R"("b")"}, {R"("ac")", R"("")"});
  expect_schema(R"({"pattern":"^a|c$"})", {R"("ax")", R"("xc")"}, {R"("xax")"});
  expect_schema(R"({"pattern":"^[^\"\\\\]\\\\\"$"})", {R"("a\\\"")"}, {R"("\"\\\"")", R"("a\\")"});
  expect_schema(R"({"pattern":"^\\d\\D\\w\\W\\s\\S$"})", {R"("1a_- x")", R"("0é9é\tü")"},
                {R"("aa_- x")", R"("1aé- x")"});
  expect_schema(R"({"pattern":"^(?:a\\.b|\\u00e9|\\x41|\\u{1F600})$"})", {R"("a.b")", R"("é")", R"("A")", R"("😀")"},
                {R"("axb")", R"("B")"});
  expect_schema(R"({"pattern":"^.{2}$"})", {R"("ab")", R"("😀é")"}, {R"("a\n")", R"("a")"});
}

TEST(Grammar, Formats) {
  const auto format = [](const std::string& name, const std::vector<std::string>& right,
                         const std::vector<std::string>& wrong) {
    std::vector<std::string> quoted, misquoted;
    for (const auto& text : right) quoted.push_back("\"" + text + "\"");
    for (const auto& text : wrong) misquoted.push_back("\"" + text + "\"");
    expect_schema(R"({"type":"string","format":")" + name + "\"}", quoted, misquoted);
  };
  format("date", {"2026-11-30"}, {"2026-13-01", "2026-1-1", "2026-11-32"});
  format("date-time", {"2026-11-30T23:59:59Z", "2026-11-30T00:00:00.125+02:00"},
         {"2026-11-30", "2026-11-30T24:00:00Z"});
  format("duration", {"P1D", "PT5M", "P1Y2M3DT4H5M6S", "P3W"}, {"P", "PT", "1D", "P1S"});
  format("uuid", {"123e4567-e89b-12d3-a456-426614174000"}, {"123e4567e89b12d3a456426614174000"});
  format("ipv4", {"0.0.0.0", "255.249.99.1"}, {"256.1.1.1", "1.1.1", "01.1.1.1"});
  format("ipv6", {"::", "::1", "fe80::1:2", "1:2:3:4:5:6:7:8"}, {"1:2", ":::", "g::1"});
  format("email", {"a.b@example.com"}, {"a", "a@", "@b.c", "a@b"});
  format("hostname", {"a-b.example.org", "localhost"}, {"-a", "a..b", ""});
}

TEST(Grammar, Numbers) {
  expect_schema(R"({"type":"integer"})", {"0", "-1", "123456789012345678"},
                {"01", "1.0", "1e3", "1234567890123456789", "+1", "-"});
  expect_schema(R"({"type":"number"})", {"0", "-0.5", "1e10", "2.5E-3", "9e99"}, {"1.", ".5", "1e", "--1", "2E351"});
  expect_schema(R"({"type":"number","minimum":-0.75,"exclusiveMaximum":10.25})",
                {"-0.75", "-0.7", "0", "0.0", "9", "10", "10.2", "10.249", "-0.1"},
                {"-0.76", "-1", "10.25", "10.250", "10.3", "11", "100"});
  expect_schema(R"({"type":"number","exclusiveMinimum":0,"maximum":1})", {"1", "1.0", "0.00001", "0.5"},
                {"0", "0.0", "1.01", "-1", "2"});
  expect_schema(R"({"type":"number","minimum":1e-7,"maximum":1e17})", {"0.0000001", "100000000000000000", "5"},
                {"0.00000009", "100000000000000001", "0"});
}

// Every integer near the bounds, by arithmetic.
TEST(Grammar, IntegerRanges) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 60; ++round) {
    const int span = round % 3 == 0 ? 12 : round % 3 == 1 ? 120 : 1500;
    const int low = static_cast<int>(random() % static_cast<uint64_t>(2 * span)) - span;
    const int high = low + static_cast<int>(random() % static_cast<uint64_t>(span));
    const auto automaton = compiled(of_schema(R"({"type":"integer","minimum":)" + std::to_string(low) +
                                              R"(,"maximum":)" + std::to_string(high) + "}"));
    ASSERT_TRUE(automaton);
    for (int value = low - 130; value <= high + 130; ++value)
      ASSERT_EQ(takes(automaton, std::to_string(value)), low <= value && value <= high)
          << value << " in " << low << " to " << high;
  }
}

TEST(Grammar, ChoicesAndReferences) {
  expect_schema(R"({"enum":["a","ab",1,null,{"k":[1]}]})", {R"("a")", R"("ab")", "1", "null", R"({"k":[1]})"},
                {R"("b")", "2", R"("abc")"});
  expect_schema(R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"});
  expect_schema(R"({"anyOf":[{"type":"integer"},{"type":"null"}]})", {"1", "null"}, {"true"});
  expect_schema(R"({"type":["integer","null"]})", {"1", "null"}, {R"("1")"});
  expect_schema(
      R"({"oneOf":[{"properties":{"k":{"const":"a"}},"required":["k"]},{"properties":{"k":{"const":"b"}},"required":["k"]}]})",
      {R"({"k":"a"})", R"({"k":"b"})"}, {R"({"k":"c"})"});
  expect_schema(
      R"({"$ref":"#/$defs/list","$defs":{"list":{"properties":{"next":{"anyOf":[{"$ref":"#/$defs/list"},{"type":"null"}]}},
                    "required":["next"]}}})",
      {R"({"next":null})", R"({"next":{"next":null}})"}, {"{}", R"({"next":{}})"});
  expect_schema(R"({"properties":{"child":{"$ref":"#"}}})", {"{}", R"({"child":{"child":{}}})"}, {R"({"child":1})"});
  expect_schema(R"({"allOf":[{"type":"null"}],"description":"x"})", {"null"}, {"1"});
}

TEST(Grammar, Pieces) {
  const auto calls = compiled(
      R"({"list":{"sequence":[{"text":"<c>"},{"either":[{"json_schema":{"const":1}},{"text":"é"}]},{"text":"</c>"}]},
                                  "between":"\n"})");
  EXPECT_TRUE(takes(calls, "<c>1</c>"));
  EXPECT_TRUE(takes(calls, "<c>é</c>\n<c>1</c>"));
  EXPECT_FALSE(takes(calls, "<c>2</c>"));
  EXPECT_FALSE(takes(calls, "<c>1</c>\n"));
  EXPECT_FALSE(takes(calls, ""));
}

TEST(Grammar, RefusesByName) {
  const auto expect = [](const std::string& schema, ErrorCode code, const std::string& param) {
    const Error error = refusal(schema);
    EXPECT_EQ(error.code, code) << schema << ": " << error.message;
    EXPECT_EQ(error.param, param) << schema << ": " << error.message;
  };
  expect(R"({"properties":{"a":{"type":"number","multipleOf":0.5}}})", ErrorCode::kUnsupported,
         "properties.a.multipleOf");
  expect(R"({"not":{"type":"null"}})", ErrorCode::kUnsupported, "not");
  expect(R"({"items":{"patternProperties":{}}})", ErrorCode::kUnsupported, "items.patternProperties");
  expect(R"({"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]})", ErrorCode::kUnsupported, "oneOf");
  expect(R"({"anyOf":[{"type":"string"}],"type":"string"})", ErrorCode::kUnsupported, "type");
  expect(R"({"type":"string","format":"uri"})", ErrorCode::kUnsupported, "format");
  expect(R"x({"type":"string","pattern":"a(?=b)"})x", ErrorCode::kUnsupported, "pattern");
  expect(R"x({"type":"string","pattern":"(a)\\1"})x", ErrorCode::kUnsupported, "pattern");
  expect(R"x({"type":"string","pattern":"a("})x", ErrorCode::kInvalidArgument, "pattern");
  expect(R"({"type":"string","pattern":"a**"})", ErrorCode::kInvalidArgument, "pattern");
  expect(R"({"type":"string","minLength":-1})", ErrorCode::kInvalidArgument, "minLength");
  expect(R"({"type":"string","minLength":3,"maxLength":2})", ErrorCode::kInvalidArgument, "maxLength");
  expect(R"({"type":"integer","minimum":3,"maximum":2})", ErrorCode::kInvalidArgument, "maximum");
  expect(R"({"type":"integer","minimum":0.2,"maximum":0.8})", ErrorCode::kInvalidArgument, "maximum");
  expect(R"({"type":"integer","enum":[1,5],"minimum":3})", ErrorCode::kUnsupported, "minimum");
  expect(R"({"enum":[1,5],"const":1})", ErrorCode::kUnsupported, "enum");
  expect(R"({"type":"text"})", ErrorCode::kInvalidArgument, "type");
  expect(R"({"enum":[]})", ErrorCode::kInvalidArgument, "enum");
  expect(R"({"$ref":"#/$defs/none"})", ErrorCode::kInvalidArgument, "$ref");
  expect(R"({"$ref":"http://example.org/a.json"})", ErrorCode::kInvalidArgument, "$ref");
  expect(R"({"$ref":"#"})", ErrorCode::kInvalidArgument, "");
  expect(R"({"anyOf":[{"type":"null"},{"$ref":"#"}]})", ErrorCode::kUnsupported, "");
  expect(R"({"properties":{"a":{"$ref":"#"}},"required":["a"]})", ErrorCode::kInvalidArgument, "");  // has no end
  expect(R"({"properties":{"a":false},"required":["a"]})", ErrorCode::kInvalidArgument, "");
  expect(R"("x")", ErrorCode::kInvalidArgument, "");
  expect(
      R"({"items":{"type":"string","maxLength":10000},"maxItems":10000,"prefixItems":[{"pattern":"^((a{1000}){1000}){1000}$"}]})",
      ErrorCode::kTooLarge, "");
  EXPECT_EQ(compile(R"({"nothing":1})").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(compile("{").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(compile(std::string(limits::kGrammarBytesMax + 1, ' ')).error().code, ErrorCode::kTooLarge);
}

TEST(Grammar, TextWithSomethingInIt) {
  const std::string g = R"({"text_with":{"text":"=1"},"behind":"<<a>")";
  const auto any = compiled(g + "}"), once = compiled(g + R"(,"once":true})"),
             first = compiled(g + R"(,"not_first":"{"})");
  const std::string token = control_bytes("<<a>");
  for (const std::string& text : {std::string(), std::string("x"), std::string("<<"), std::string("<<<a>=1"),
                                  "\xC3\xA9 " + token + "=1", std::string("<<b> <<a>=1 {")}) {
    EXPECT_TRUE(takes(any, text)) << text;
    EXPECT_EQ(takes(once, text), !text.ends_with("{")) << text;
    EXPECT_TRUE(takes(first, text)) << text;
  }
  for (const std::string text : {"<<a>", "<<<a>", "<<a>=", "<<a>2", "\xFF", "\xFFx"}) {
    EXPECT_FALSE(takes(any, text)) << text;
    EXPECT_FALSE(takes(first, text)) << text;
  }
  EXPECT_TRUE(takes(any, "<<a>=1<<a>=1.") && !takes(once, "<<a>=1.") && !takes(once, "<<a>=1<<a>=1"));
  EXPECT_TRUE(takes(any, "\n {") && !takes(first, "\n {") && !takes(first, "{") && takes(first, "\n a {"));
  EXPECT_TRUE(takes(compiled(R"({"token":"<<a>"})"), token) && !takes(compiled(R"({"token":"<<a>"})"), "<<a>"));
  for (const char* bad :
       {R"({"text_with":{"text":"x"}})", R"({"text_with":{"text":"x"},"behind":""})", R"({"token":1})"})
    EXPECT_EQ(compile(bad).error().code, ErrorCode::kInvalidArgument) << bad;
}

TEST(Grammar, TextUntilItsEnd) {
  const auto until = compiled(R"({"sequence":[{"text_until":"</a>"},{"text":"!"}]})");
  for (const std::string text : {"</a>!", "x</a>!", "<</a>!", "</</a>!", "</ a></a>!", "\xC3\xA9\n</a>!"})
    EXPECT_TRUE(takes(until, text)) << text;
  for (const std::string text : {"", "!", "</a>", "x</a>x</a>!", "</a>!!", "\xFF</a>!"})
    EXPECT_FALSE(takes(until, text)) << text;
  EXPECT_EQ(compile(R"({"text_until":""})").error().code, ErrorCode::kInvalidArgument);
}

// ---- masks ----

std::shared_ptr<const TokenTree> tree_of(std::vector<std::string> bytes, TokenId end) {
  return std::make_shared<TokenTree>(std::move(bytes), std::vector<TokenId>{end});
}

// All bytes, and random strings of what JSON is made of.
std::vector<std::string> random_vocabulary(std::mt19937_64& random, size_t size) {
  std::vector<std::string> bytes;
  for (int i = 0; i < 256; ++i) bytes.emplace_back(1, static_cast<char>(i));
  constexpr std::string_view kAlphabet = "{}[]\",:0123456789.-+eE truefalsn\\u\n\xC3\xA9";
  while (bytes.size() < size) {
    std::string token;
    for (uint64_t i = 1 + random() % 5; i-- > 0;) token += kAlphabet[random() % kAlphabet.size()];
    bytes.push_back(token);
  }
  bytes.emplace_back("<end>");
  return bytes;
}

bool is_set(std::span<const uint64_t> mask, TokenId token) {
  return (mask[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

TEST(TokenMasks, AreWhatEveryTokenByItselfWouldBe) {
  std::mt19937_64 random(11);
  const std::vector<std::string> bytes = random_vocabulary(random, 600);
  const auto end = static_cast<TokenId>(bytes.size() - 1);
  const auto tree = tree_of(bytes, end);
  const auto automaton = compiled(of_schema(
      R"({"properties":{"n":{"type":"number","minimum":-5,"maximum":1e3},"s":{"type":"string"},"l":{"items":{"$ref":"#"}}},
          "required":["n"]})"));
  for (int answer = 0; answer < 20; ++answer) {
    TokenMasks masks(automaton, tree);
    GrammarWalk plain(automaton);
    TokenMasks::Reader reader;
    std::vector<TokenId> generated;
    std::string text;
    while (generated.size() < 60) {
      const auto mask = masks.behind(generated, reader);
      ASSERT_TRUE(mask) << text << ": " << mask.error().message;
      std::vector<TokenId> allowed;
      for (TokenId token = 0; token < tree->vocab_size(); ++token) {
        bool may = token == end && plain.may_end(plain.read(plain.start(), text));
        if (token < end)
          may = plain.read(plain.start(), text + bytes[static_cast<size_t>(token)]) != GrammarWalk::kNowhere;
        ASSERT_EQ(is_set(*mask, token), may) << "'" << text << "' and token " << token;
        if (may) allowed.push_back(token);
      }
      generated.push_back(allowed[random() % allowed.size()]);
      if (generated.back() == end) break;
      text += bytes[static_cast<size_t>(generated.back())];
    }
    if (generated.back() == end) {
      EXPECT_FALSE(json::parse(text, nullptr, false).is_discarded()) << text;
    }
  }
}

TEST(TokenMasks, AControlTokenFollowsOnlyWhereAGrammarNamesIt) {
  const auto tree = tree_of({"<", "a", ">", "{", "}", control_bytes("<a>"), control_bytes("<b>"), "<end>"}, 7);
  const auto follows = [&](const std::string& grammar, const std::vector<TokenId>& generated, TokenId token) {
    TokenMasks masks(compiled(grammar), tree);
    TokenMasks::Reader reader;
    const auto mask = masks.behind(generated, reader);
    EXPECT_TRUE(mask) << mask.error().message;
    return is_set(*mask, token);
  };
  const std::string named = R"({"text_with":{"json_object":true},"behind":"<a>"})";
  for (const std::vector<TokenId>& generated : {std::vector<TokenId>{}, {1, 0}, {0, 1}}) {
    EXPECT_TRUE(follows(named, generated, 5));
    EXPECT_FALSE(follows(named, generated, 6));
    EXPECT_TRUE(follows(named, generated, 7)) << "it may end";
  }
  for (const std::vector<TokenId>& called : {std::vector<TokenId>{5}, {0, 1, 2}, {1, 5}}) {
    EXPECT_TRUE(follows(named, called, 3)) << "an object, and nothing else";
    for (const TokenId other : {0, 1, 5, 7}) EXPECT_FALSE(follows(named, called, other));
  }
  EXPECT_FALSE(follows(R"({"json_object":true})", {}, 5));
  EXPECT_TRUE(follows(R"({"either":[{"text":"<"},{"token":"<b>"}]})", {}, 6));
}

// What is forgotten or read by another changes nothing.
TEST(TokenMasks, DoNotDependOnWhatWasAskedBefore) {
  std::mt19937_64 random(5);
  const std::vector<std::string> bytes = random_vocabulary(random, 400);
  const auto tree = tree_of(bytes, static_cast<TokenId>(bytes.size() - 1));
  const auto automaton = compiled(R"({"json_object": true})");
  TokenMasks used(automaton, tree);
  TokenMasks::Reader warm;
  std::vector<TokenId> generated;
  for (int i = 0; i < 3000; ++i) {  // deep lists: ever new places, so that all are forgotten now and then
    generated.push_back(static_cast<TokenId>(i == 0 ? '{' : i == 1 ? '"' : i == 2 ? '"' : i == 3 ? ':' : '['));
    const auto mask = used.behind(generated, warm);
    ASSERT_TRUE(mask);
    if (i % 500 != 0) continue;
    TokenMasks fresh(automaton, tree);
    TokenMasks::Reader cold;
    const auto other = fresh.behind(generated, cold);
    ASSERT_TRUE(other);
    EXPECT_TRUE(std::ranges::equal(*mask, *other));
  }
}

// Any of them may come next: as many stacks, and still a mask.
TEST(TokenMasks, ManyFieldsThatMayBeLeftOut) {
  const auto schema = [](int fields) {
    std::string properties;
    for (int i = 0; i < fields; ++i)
      properties +=
          (i > 0 ? ",\"f" : "\"f") + std::to_string(i) + R"(":{"type":"object","properties":{"x":{"const":1}}})";
    return R"({"properties":{)" + properties + "}}";
  };
  std::mt19937_64 random(2);
  const auto tree = tree_of(random_vocabulary(random, 2000), 2000);
  TokenMasks masks(compiled(of_schema(schema(limits::kGrammarOptionalMax))), tree);
  TokenMasks::Reader reader;
  std::vector<TokenId> generated;
  for (const char byte : std::string_view(R"({"f0":{}, "f399":{"x":1}})")) {
    const auto mask = masks.behind(generated, reader);
    ASSERT_TRUE(mask) << mask.error().message;
    ASSERT_TRUE(is_set(*mask, byte)) << generated.size();
    generated.push_back(byte);
  }
  EXPECT_EQ(refusal(schema(limits::kGrammarOptionalMax + 1)).param, "properties");
}

TEST(TokenMasks, EndWhatTheyCannotTell) {
  const auto tree = tree_of({"{", "}", "<end>"}, 2);  // no quote: a field cannot begin
  TokenMasks masks(compiled(of_schema(R"({"properties":{"a":{"const":1}},"required":["a"]})")), tree);
  TokenMasks::Reader reader;
  ASSERT_TRUE(masks.behind({}, reader));
  const std::vector<TokenId> generated = {0};
  const auto mask = masks.behind(generated, reader);
  ASSERT_FALSE(mask);
  EXPECT_EQ(mask.error().code, ErrorCode::kTooLarge);
}

// A pattern that has to remember where each of the last 40 a's was: as many places as texts. Said in time, in bounded memory.
TEST(TokenMasks, PatternsThatRememberAreBounded) {
  std::vector<std::string> bytes = {"\"", "<end>"};
  for (int word = 0; word < 1 << 15; ++word) {
    std::string& token = bytes.emplace_back();
    for (int bit = 0; bit < 15; ++bit) token += (word >> bit & 1) != 0 ? 'a' : 'b';
  }
  TokenMasks masks(compiled(of_schema(R"({"pattern":"a.{40}$"})")), tree_of(bytes, 1));
  TokenMasks::Reader reader;
  const std::vector<TokenId> generated = {0};
  const auto mask = masks.behind(generated, reader);
  ASSERT_FALSE(mask);
  EXPECT_EQ(mask.error().code, ErrorCode::kTooLarge);
  EXPECT_TRUE(masks.behind({}, reader)) << "what is forgotten makes room";
}

// Two ways to nest double with every level: the stacks are bounded, and so is the time.
TEST(TokenMasks, AmbiguityIsBounded) {
  std::mt19937_64 random(3);
  const auto tree = tree_of(random_vocabulary(random, 2000), 2000);
  TokenMasks masks(compiled(of_schema(
                       R"({"anyOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"},"minItems":0},{"type":"integer"}]})")),
                   tree);
  TokenMasks::Reader reader;
  std::vector<TokenId> generated;
  for (int i = 0; i < 40; ++i) {
    if (!masks.behind(generated, reader)) return;  // said, not hung
    generated.push_back('[');
  }
  FAIL() << "lists of 40 levels, 2^40 ways";
}

}  // namespace
}  // namespace runahead::grammar
