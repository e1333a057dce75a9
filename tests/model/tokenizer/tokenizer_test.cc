#include "model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/rng.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "tests/model/tokenizer/linear_time.h"
#include "tests/support/default_model.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using test::GgufBuilder;
using test::TinyVocabulary;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

nlohmann::json read_cases() {
  std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/tokens.json");
  return nlohmann::json::parse(file);
}

std::string escaped(const std::string& text) { return nlohmann::json(text).dump(-1, ' ', true); }

// One of each row of the table.
constexpr const char* kNames[] = {
    "default",      "gpt-2",          "smollm",      "falcon",   "llama-bpe",  "glm4",   "smaug-bpe",
    "jais-2",       "minicpm5",       "qwen2",       "qwen35",   "seed-coder", "laguna", "bailingmoe",
    "ufakzeka",     "exaone-moe",     "tekken",      "gpt-4o",   "kimi-k2",    "bloom",  "viking",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "superbpe"};

const Tokenizer& default_tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(Gguf::open(test::default_model()).value()).value();
  return kTokenizer;
}

// A tokenizer of a vocabulary made for one test.
Result<Tokenizer> tokenizer_of(const TinyVocabulary& vocabulary, const std::function<void(GgufBuilder&)>& more = {},
                               std::string_view pre = "gpt-2") {
  GgufBuilder file;
  file.str("tokenizer.ggml.model", "gpt2");
  if (!pre.empty()) file.str("tokenizer.ggml.pre", pre);
  file.strings("tokenizer.ggml.tokens", vocabulary.tokens);
  file.i32s("tokenizer.ggml.token_type", vocabulary.types);
  file.strings("tokenizer.ggml.merges", vocabulary.merges);
  if (more) more(file);
  const std::vector<std::byte> bytes = file.build();
  return Tokenizer::load(TRY(Gguf::parse(bytes, "test.gguf")));
}

// All bytes as tokens 0 to 255, then `words` of type `type`.
TinyVocabulary bytes_and(const std::vector<std::string>& words, int32_t type, std::vector<std::string> merges = {}) {
  TinyVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(test::byte_stand_in(byte));
  vocabulary.types.assign(256, 1);
  for (const std::string& word : words) {
    vocabulary.tokens.push_back(word);
    vocabulary.types.push_back(type);
  }
  vocabulary.merges = std::move(merges);
  return vocabulary;
}

TEST(Tokenizer, GivesTheIdsOfAnIndependentImplementation) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  for (const auto& wanted : read_cases()) {
    const std::string text = wanted["text"];
    const auto plain = default_tokenizer().encode(text, false);
    ASSERT_TRUE(plain) << escaped(text) << ": " << plain.error().message;
    EXPECT_EQ(*plain, wanted["ids"].get<std::vector<TokenId>>()) << escaped(text);
    EXPECT_EQ(default_tokenizer().encode(text, true).value(), wanted["special_ids"].get<std::vector<TokenId>>())
        << escaped(text);
  }
}

TEST(PreTokenizer, CutsAsThePublishedExpressionsDo) {
  for (const auto& wanted : read_cases()) {
    const std::string text = wanted["text"];
    for (const auto& [name, lengths] : wanted["pieces"].items()) {
      std::vector<std::string_view> pieces;
      ASSERT_TRUE(PreTokenizer::load(name)->split(text, pieces));
      std::vector<size_t> got;
      for (const std::string_view piece : pieces) got.push_back(piece.size());
      EXPECT_EQ(got, lengths.get<std::vector<size_t>>()) << name << " " << escaped(text);
    }
  }
}

TEST(PreTokenizer, CutsAsHuggingFacesLibraryDoes) {
  std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/pieces.json");
  const auto golden = nlohmann::json::parse(file);
  EXPECT_EQ(golden["pieces"].size(), 15u);
  for (const auto& [name, wanted] : golden["pieces"].items()) {
    const PreTokenizer pre = PreTokenizer::load(name).value();
    for (size_t i = 0; i < golden["texts"].size(); ++i) {
      const std::string text = golden["texts"][i];
      std::vector<std::string_view> pieces;
      ASSERT_TRUE(pre.split(text, pieces));
      std::vector<size_t> got;
      for (const std::string_view piece : pieces) got.push_back(piece.size());
      EXPECT_EQ(got, wanted[i].get<std::vector<size_t>>()) << name << " " << escaped(text);
    }
  }
}

TEST(PreTokenizer, TakesLinearTimeForEveryName) {
  std::string mixed;
  while (mixed.size() < 1 << 18) mixed += "aA \n 12\xCC\x81/";
  for (const char* name : kNames) {
    const PreTokenizer pre = PreTokenizer::load(name).value();
    for (const std::string& text :
         {std::string(1 << 18, 'a'), std::string(1 << 18, 'A'), std::string(1 << 18, ' ') + "1",
          std::string(1 << 18, '\n'), std::string(1 << 18, '7'), std::string(1 << 18, '!'), mixed}) {
      const std::clock_t begin = std::clock();
      std::vector<std::string_view> pieces;
      const auto split = pre.split(text, pieces);
      ASSERT_TRUE(split) << name << " '" << text[0] << "': " << split.error().message;
      EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 2.0) << name << " '" << text[0] << "'";
    }
  }
}

TEST(PreTokenizer, PiecesOfAnyBytesAreTheText) {
  SeededRng random(3);
  for (const char* name : kNames) {
    const PreTokenizer pre = PreTokenizer::load(name).value();
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (uint64_t left = random.next() % 40; left > 0; --left) text += static_cast<char>(random.next());
      std::vector<std::string_view> pieces;
      ASSERT_TRUE(pre.split(text, pieces));
      std::string joined;
      for (const std::string_view piece : pieces) {
        EXPECT_FALSE(piece.empty());
        joined += piece;
      }
      EXPECT_EQ(joined, text);
    }
  }
}

TEST(PreTokenizer, AnUnknownNameIsAnErrorNeverAGuess) {
  const auto pre = PreTokenizer::load("afmoe");
  ASSERT_FALSE(pre);
  EXPECT_EQ(pre.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(pre.error().message, HasSubstr("'afmoe'"));
  EXPECT_THAT(pre.error().message, HasSubstr("--override-kv tokenizer.ggml.pre=str:NAME"));
  for (const char* part : {"", " ", "gpt", "gpt-2 phi-2", "llama", "gpt-2 "})
    EXPECT_FALSE(PreTokenizer::load(part)) << part;
  const auto unnamed = tokenizer_of(bytes_and({}, 1), {}, "");
  ASSERT_FALSE(unnamed);
  EXPECT_EQ(unnamed.error().param, "tokenizer.ggml.pre");
}

TEST(Tokenizer, AnyBytesComeBackAsTheyWere) {
  const Tokenizer tokenizer = tokenizer_of(test::tiny_vocabulary(), {}, "smollm").value();
  SeededRng random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint64_t left = random.next() % 60; left > 0; --left) {
      const uint64_t kind = random.next() % 4;
      if (kind == 0) text += static_cast<char>(random.next());
      if (kind == 1) text += "<|im_end|>";
      if (kind >= 2) text += " the and\n"[random.next() % 9];
    }
    for (const bool parse_special : {false, true})
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, parse_special).value(), true), text);
  }
}

TEST(Tokenizer, ValidTextComesBackFromTheDefaultVocabulary) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  for (const auto& wanted : read_cases()) {
    const std::string text = wanted["text"];
    EXPECT_EQ(default_tokenizer().decode(default_tokenizer().encode(text, false).value(), true), text);
    EXPECT_EQ(default_tokenizer().decode(default_tokenizer().encode(text, true).value(), true), text);
  }
}

TEST(Tokenizer, ABytesWithoutATokenIsReportedWithItsPlace) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const auto ids = default_tokenizer().encode("ok \x04 and \x13\xff", false);
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(ids.error().message, HasSubstr("3 of the text's bytes"));
  EXPECT_THAT(ids.error().message, HasSubstr("0x04 at 3, 0x13 at 9, 0xFF at 10"));
}

TEST(Tokenizer, InvalidUtf8IsTokenisedByItsBytes) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const auto ids = default_tokenizer().encode("caf\xc3 x\xe4\xb8", false);  // both characters lack their last byte
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(default_tokenizer().decode(*ids, true), "caf\xc3 x\xe4\xb8");
}

TEST(Tokenizer, ControlTokensAreParsedOnlyWhereAskedAndUserDefinedOnesAlways) {
  TinyVocabulary vocabulary = bytes_and({"<ctl>", "<ctl>long"}, 3);
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"<usr>", "<unk>"});
  vocabulary.types.insert(vocabulary.types.end(), {4, 2});
  const Tokenizer tokenizer = tokenizer_of(vocabulary).value();
  EXPECT_THAT(tokenizer.encode("a<ctl>b", true).value(), ElementsAre('a', 256, 'b'));
  EXPECT_THAT(tokenizer.encode("<ctl>", false).value(), ElementsAre('<', 'c', 't', 'l', '>'));
  EXPECT_THAT(tokenizer.encode("<ctl>longer", true).value(), ElementsAre(257, 'e', 'r'));  // the longest wins
  EXPECT_THAT(tokenizer.encode("<ctl>lon", true).value(), ElementsAre(256, 'l', 'o', 'n'));
  EXPECT_THAT(tokenizer.encode("<usr>", false).value(), ElementsAre(258));
  EXPECT_THAT(tokenizer.encode("<unk>", false).value(), ElementsAre('<', 'u', 'n', 'k', '>'));
  EXPECT_THAT(tokenizer.encode("<unk>", true).value(), ElementsAre(259));
  EXPECT_TRUE(tokenizer.is_control(256));
  EXPECT_FALSE(tokenizer.is_control(258));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{'a', 256, 258, 9999, -1}, false), "a<usr>");
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{'a', 256, 258}, true), "a<ctl><usr>");
}

TEST(Tokenizer, MergesNeverMakeAControlToken) {
  const Tokenizer tokenizer = tokenizer_of(bytes_and({"ab"}, 3, {"a b"})).value();
  EXPECT_THAT(tokenizer.encode("ab", false).value(), ElementsAre('a', 'b'));
}

TEST(Tokenizer, MergesGoByRankThenFromTheLeft) {
  const Tokenizer tokenizer = tokenizer_of(bytes_and({"bc", "ab", "aa"}, 1, {"b c", "a b", "a a"})).value();
  EXPECT_THAT(tokenizer.encode("abc", false).value(), ElementsAre('a', 256));
  EXPECT_THAT(tokenizer.encode("abab", false).value(), ElementsAre(257, 257));
  EXPECT_THAT(tokenizer.encode("aaaaa", false).value(), ElementsAre(258, 258, 'a'));
}

TEST(Tokenizer, AMergeThroughAStringThatIsNoTokenStillCounts) {
  const Tokenizer tokenizer = tokenizer_of(bytes_and({"abc"}, 1, {"a b", "ab c"})).value();
  EXPECT_THAT(tokenizer.encode("abc", false).value(), ElementsAre(256));
  EXPECT_THAT(tokenizer.encode("abx", false).value(), ElementsAre('a', 'b', 'x'));
}

TEST(Tokenizer, AWholeWordOfTheVocabularyWinsWhereMergesAreIgnored) {
  const TinyVocabulary vocabulary = bytes_and({"word", "wo"}, 1, {"w o"});  // no merges lead to "word"
  EXPECT_THAT(tokenizer_of(vocabulary, {}, "llama-bpe")->encode("word", false).value(), ElementsAre(256));
  EXPECT_THAT(tokenizer_of(vocabulary, {}, "qwen2")->encode("word", false).value(), ElementsAre(257, 'r', 'd'));
}

TEST(Tokenizer, AddsTheTokensTheFileAsksForOnce) {
  const Tokenizer both = tokenizer_of(bytes_and({"<s>", "</s>"}, 3), [](GgufBuilder& file) {
                           file.u32("tokenizer.ggml.bos_token_id", 256);
                           file.u32("tokenizer.ggml.eos_token_id", 257);
                           file.boolean("tokenizer.ggml.add_bos_token", true);
                           file.boolean("tokenizer.ggml.add_eos_token", true);
                         }).value();
  std::vector<TokenId> ids = {'a'};
  both.add_bos_eos(ids);
  EXPECT_THAT(ids, ElementsAre(256, 'a', 257));
  both.add_bos_eos(ids);
  EXPECT_THAT(ids, ElementsAre(256, 'a', 257));
  const auto unsaid = [](std::string_view pre) {
    std::vector<TokenId> out = {'a'};
    tokenizer_of(
        bytes_and({"<s>"}, 3), [](GgufBuilder& file) { file.u32("tokenizer.ggml.bos_token_id", 256); }, pre)
        ->add_bos_eos(out);
    return out;
  };
  EXPECT_THAT(unsaid("llama-bpe"), ElementsAre(256, 'a'));  // Llama 3's files leave the key out
  EXPECT_THAT(unsaid("gpt-2"), ElementsAre('a'));
}

TEST(Tokenizer, EndsAreTheNamedIdsAndTheKnownTexts) {
  const Tokenizer tokenizer =
      tokenizer_of(bytes_and({"<|im_end|>", "<|im_start|>", "<|eot_id|>", "</s>"}, 3), [](GgufBuilder& file) {
        file.u32("tokenizer.ggml.eos_token_id", 259);
      }).value();
  EXPECT_THAT(tokenizer.end_tokens(), ElementsAre(256, 258, 259));
  EXPECT_TRUE(tokenizer.is_end(258));
  EXPECT_FALSE(tokenizer.is_end(257));
}

TEST(Tokenizer, AnEndMarkerTypedAsAWordIsAControlToken) {
  const Tokenizer tokenizer = tokenizer_of(bytes_and({"<|im_end|>"}, 1)).value();
  EXPECT_THAT(tokenizer.encode("a<|im_end|>", true).value(), ElementsAre('a', 256));
  EXPECT_EQ(tokenizer.encode("a<|im_end|>", false).value().size(), 11u);
  EXPECT_TRUE(tokenizer.is_control(256) && tokenizer.is_end(256));
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNoIds) {
  const auto padded = tokenizer_of(bytes_and({"<s>"}, 3), [](GgufBuilder& file) {
    file.u32("tokenizer.ggml.padding_token_id", 257);
    file.u32("tokenizer.ggml.eot_token_id", 300);
    file.i32("tokenizer.ggml.eom_token_id", -7);
    file.u32("tokenizer.ggml.eos_token_id", 256);
  });
  ASSERT_TRUE(padded) << padded.error().message;
  EXPECT_EQ(padded->special().eot, kNoToken);
  EXPECT_EQ(padded->special().eom, kNoToken);
  EXPECT_THAT(padded->end_tokens(), ElementsAre(256));
  const auto nameless = tokenizer_of(bytes_and({"<s>"}, 3),
                                     [](GgufBuilder& file) { file.boolean("tokenizer.ggml.add_bos_token", true); });
  ASSERT_FALSE(nameless);
  EXPECT_EQ(nameless.error().code, ErrorCode::kInvalidModel);
  EXPECT_THAT(nameless.error().message, HasSubstr("--override-kv tokenizer.ggml.add_bos_token=bool:false"));
}

TEST(Tokenizer, TextThatIsToBeInLowerCaseFirstIsRefused) {
  const auto lower = tokenizer_of(bytes_and({"<s>"}, 3),
                                  [](GgufBuilder& file) { file.boolean("tokenizer.ggml.normalizer.lowercase", true); });
  ASSERT_FALSE(lower);
  EXPECT_EQ(lower.error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(tokenizer_of(bytes_and({"<s>"}, 3),
                           [](GgufBuilder& file) { file.boolean("tokenizer.ggml.normalizer.lowercase", false); }));
}

TEST(Tokenizer, AVocabularyThatContradictsItselfIsRefused) {
  const auto expect_invalid = [](const TinyVocabulary& vocabulary) {
    const auto tokenizer = tokenizer_of(vocabulary);
    ASSERT_FALSE(tokenizer);
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kInvalidModel);
  };
  for (const char* merge : {"", "ab", " ", "a ", " b", "a b c", "\xe4\xb8\xad a"})
    expect_invalid(bytes_and({}, 1, {merge}));
  TinyVocabulary fewer_types = bytes_and({}, 1);
  fewer_types.types.pop_back();
  expect_invalid(fewer_types);
  expect_invalid({});
}

TEST(Tokenizer, KindsThatAreNotBuiltAreRefusedByName) {
  const auto refusal = [](const std::function<void(GgufBuilder&)>& fill) {
    GgufBuilder file;
    fill(file);
    const std::vector<std::byte> bytes = file.build();
    const auto tokenizer = Tokenizer::load(Gguf::parse(bytes, "test.gguf").value());
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
    return tokenizer.error().message;
  };
  for (const char* kind : {"bert", "rwkv", "plamo2", "gemma4", "test", ""})
    EXPECT_THAT(refusal([&](GgufBuilder& file) { file.str("tokenizer.ggml.model", kind); }),
                HasSubstr("kind '" + std::string(kind) + "'"));
  EXPECT_THAT(refusal([](GgufBuilder& file) { file.str("tokenizer.ggml.model", "bert"); }), HasSubstr("WordPiece"));
  EXPECT_THAT(refusal([](GgufBuilder& file) { file.str("tokenizer.ggml.model", "none"); }), HasSubstr("no tokenizer"));
  EXPECT_THAT(refusal([](GgufBuilder&) {}), HasSubstr("the file holds no tokenizer"));
}

TEST(Tokenizer, AMebibyteOfOneKindTakesNoMoreThanLinearTime) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const std::string spaces_then_x = std::string(1 << 20, ' ') + "x";
  std::string alternating;
  while (alternating.size() < 1 << 20) alternating += "\n a1\xc3";
  for (const std::string& text : {std::string(1 << 20, 'A'), std::string(1 << 20, '\n'), std::string(1 << 20, '<'),
                                  std::string(1 << 20, '7'), spaces_then_x, alternating}) {
    test::expect_linear_time(default_tokenizer(), text);
    const auto ids = default_tokenizer().encode(text, true);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_TRUE(default_tokenizer().decode(*ids, true) == text);
  }
}

TEST(Tokenizer, ATextOverTheLimitIsRefused) {
  const Tokenizer tokenizer = tokenizer_of(bytes_and({}, 1)).value();
  const std::string text(limits::kTextBytesMax + 1, 'a');
  EXPECT_EQ(tokenizer.encode(text, false).error().code, ErrorCode::kTooLarge);
}

TEST(Tokenizer, AnEmptyTextHasNoTokens) {
  EXPECT_THAT(tokenizer_of(bytes_and({}, 1))->encode("", true).value(), IsEmpty());
}

}  // namespace
}  // namespace runahead
