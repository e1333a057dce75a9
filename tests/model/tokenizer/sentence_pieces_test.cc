// Vocabularies of SentencePiece (tokenizer.ggml.model = llama and t5), held against llama.cpp's own answers
// (tests/golden/make_sentence_pieces.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "model/tokenizer/charsmap.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/model/tokenizer/linear_time.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using nlohmann::json;
using test::GgufBuilder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kSpace = "\xE2\x96\x81";
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

struct Piece {
  std::string text;
  float score = 0;
  int32_t type = kNormal;
};

std::string byte_piece(int byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return std::string("<0x") + kHex[static_cast<size_t>(byte / 16)] + kHex[static_cast<size_t>(byte % 16)] + '>';
}

std::vector<Piece> bytes() {
  std::vector<Piece> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.push_back({byte_piece(byte), 0, kByte});
  return pieces;
}

// <unk>, <s>, </s>, the bytes from id 3 on, then `more` from id 259 on.
std::vector<Piece> usual(const std::vector<Piece>& more) {
  std::vector<Piece> pieces = {{"<unk>", 0, kUnknown}, {"<s>", 0, kControl}, {"</s>", 0, kControl}};
  for (const auto& list : {bytes(), more}) pieces.insert(pieces.end(), list.begin(), list.end());
  return pieces;
}
constexpr TokenId kFirstByte = 3, kFirst = 259;

using Fill = std::function<void(GgufBuilder&)>;

Result<Tokenizer> tokenizer_of(std::string_view model, const std::vector<Piece>& pieces, const Fill& more = {}) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const Piece& piece : pieces) {
    texts.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(piece.type);
  }
  GgufBuilder file;
  file.str("tokenizer.ggml.model", model);
  file.strings("tokenizer.ggml.tokens", texts);
  file.f32s("tokenizer.ggml.scores", scores);
  file.i32s("tokenizer.ggml.token_type", types);
  if (more) more(file);
  const std::vector<std::byte> built = file.build();
  return Tokenizer::load(TRY(Gguf::parse(built, "test.gguf")));
}

// Strings are text, {"hex": "..."} any bytes.
std::string raw(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  const std::string hex = value["hex"];
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

const json& cases() {
  static const json kCases = [] {
    std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/sentence_pieces.json");
    return json::parse(file)["cases"];
  }();
  return kCases;
}

void set_key(GgufBuilder& file, const std::string& key, const json& value) {
  if (value.is_boolean()) file.boolean(key, value.get<bool>());
  else if (value.is_string()) file.str(key, value.get<std::string>());
  else file.u32(key, value.get<uint32_t>());
}

// The generator leaves the bytes' tokens out of the list, and says where they were by what is in front of them.
Tokenizer golden_tokenizer(const json& golden) {
  GgufBuilder file;
  file.str("tokenizer.ggml.model", golden["model"].get<std::string>());
  file.strings("tokenizer.ggml.tokens", golden["tokens"]);
  if (!golden["scores"].is_null()) file.f32s("tokenizer.ggml.scores", golden["scores"]);
  file.i32s("tokenizer.ggml.token_type", golden["types"]);
  for (const auto& [key, value] : golden["keys"].items()) set_key(file, key, value);
  if (const std::string map = raw({{"hex", golden["charsmap"]}}); !map.empty())
    file.key("tokenizer.ggml.precompiled_charsmap", 9)
        .number<uint32_t>(0)
        .number<uint64_t>(map.size())
        .raw(std::as_bytes(std::span(map)));
  const std::vector<std::byte> built = file.build();
  return Tokenizer::load(Gguf::parse(built, "golden.gguf").value()).value();
}

json with_bytes(json golden) {
  const size_t at = golden["bytes_at"];
  const size_t count = golden["bytes"];
  const auto insert = [&](const char* list, const std::function<json(int)>& value) {
    json out = json::array();
    for (size_t i = 0; i < golden[list].size() + count; ++i)
      out.push_back(i < at           ? golden[list][i]
                    : i < at + count ? value(static_cast<int>(i - at))
                                     : golden[list][i - count]);
    golden[list] = out;
  };
  insert("tokens", byte_piece);
  insert("types", [](int) { return kByte; });
  if (!golden["scores"].is_null()) insert("scores", [](int) { return 0.0f; });
  return golden;
}

TEST(SentencePieces, MakeTheIdsOfTheLibrary) {
  size_t texts = 0;
  for (const json& golden : cases()) {
    const Tokenizer tokenizer = golden_tokenizer(with_bytes(golden));
    for (const json& row : golden["rows"]) {
      const std::string text = raw(row[0]);
      const std::string name = golden["name"].get<std::string>() + ": " + row[0].dump();
      const auto plain = tokenizer.encode(text, false);
      ASSERT_TRUE(plain) << name << " " << plain.error().message;
      EXPECT_EQ(*plain, row[1].get<std::vector<TokenId>>()) << name;
      std::vector<TokenId> special = tokenizer.encode(text, true).value();
      const json& wanted = row[2].is_null() ? row[1] : row[2];
      EXPECT_EQ(special, wanted.get<std::vector<TokenId>>()) << name;
      const bool ends = !special.empty() && tokenizer.is_end(special.back());
      const bool begins = !special.empty() && special.front() == tokenizer.special().bos;
      const size_t before = special.size();
      tokenizer.add_bos_eos(special);
      if (!begins && !ends) {  // the library adds one to one
        EXPECT_EQ(special.size() - before, row[3].get<size_t>()) << name;
      }
      ++texts;
    }
  }
  EXPECT_GT(texts, 500u);
}

TEST(SentencePieces, ComeBackAsTheLibraryWritesThem) {
  for (const json& listed : cases()) {
    const json golden = with_bytes(listed);
    const Tokenizer tokenizer = golden_tokenizer(golden);
    for (const json& row : golden["rows"]) {
      const auto ids = row[1].get<std::vector<TokenId>>();
      // The library leaves the first space of the text out, but not that behind a token which was cut out; and writes nothing for
      // unused tokens.
      const bool parts = std::ranges::any_of(ids, [&](TokenId id) {
        const int32_t type = golden["types"][static_cast<size_t>(id)];
        return type != kNormal && type != kByte;
      });
      const std::string name = golden["name"].get<std::string>() + ": " + row[0].dump();
      if (!parts) {
        EXPECT_EQ(tokenizer.decode(ids, true), raw(row[4].is_null() ? row[0] : row[4])) << name;
      }
    }
  }
}

TEST(SentencePieces, AnyTextComesBackFromPairs) {
  const auto replaced = [](std::string text) {
    for (size_t at; (at = text.find(kSpace)) != std::string::npos;) text.replace(at, kSpace.size(), " ");
    return text;
  };
  size_t texts = 0;
  for (const json& golden : cases()) {
    const std::string name = golden["name"];
    if (golden["model"] != "llama" || name == "no bytes" || name == "phi 3") continue;
    const Tokenizer tokenizer = golden_tokenizer(with_bytes(golden));
    SeededRng random(11);
    for (int round = 0; round < 300; ++round) {
      std::string text;
      for (uint64_t left = random.next() % 30; left > 0; --left) {
        const uint64_t kind = random.next() % 8;
        if (kind == 0) text += static_cast<char>(random.next());
        else if (kind == 1) text += "<s>";
        else if (kind == 2) text += "   ";
        else text += "ab cdx\ny<"[random.next() % 9];
      }
      for (const bool parse_special : {false, true}) {
        const auto ids = tokenizer.encode(text, parse_special).value();
        EXPECT_EQ(tokenizer.decode(ids, true), replaced(text))
            << name << json(text).dump(-1, ' ', true, json::error_handler_t::replace);
        ++texts;
      }
    }
  }
  EXPECT_GT(texts, 2000u);
}

TEST(SentencePieces, TheBestPairGoesFirstThenTheLeftmost) {
  const Tokenizer tokenizer =
      tokenizer_of("llama", usual({{kSpace, -9}, {"a", -9}, {"b", -9}, {"c", -9}, {"bc", -1}, {"ab", -2}, {"aa", -3}}),
                   [](GgufBuilder& file) { file.boolean("tokenizer.ggml.add_space_prefix", false); })
          .value();
  const TokenId a = kFirst + 1, bc = kFirst + 4, ab = kFirst + 5, aa = kFirst + 6;
  EXPECT_THAT(tokenizer.encode("abc", false).value(), ElementsAre(a, bc));
  EXPECT_THAT(tokenizer.encode("abab", false).value(), ElementsAre(ab, ab));
  EXPECT_THAT(tokenizer.encode("aaaaa", false).value(), ElementsAre(aa, aa, a));
}

TEST(SentencePieces, AUsersWordsNeverBecomeControlTokensOrBytes) {
  // The library joins any text that the vocabulary holds, so that "<s>" may become the beginning of the text.
  const Tokenizer tokenizer =
      tokenizer_of("llama", usual({{kSpace, -9}, {"<", -9}, {"s", -9}, {">", -9}, {"s>", -1}, {"<0x41>", 0, kByte}}))
          .value();
  for (const TokenId id : tokenizer.encode("<s>", false).value()) EXPECT_FALSE(tokenizer.is_control(id));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s> <0x41>", false).value(), true), "<s> <0x41>");
}

TEST(SentencePieces, BytesComeOneByOneAndTheFirstSpaceIsTheTokensOwn) {
  const Tokenizer tokenizer = tokenizer_of("llama", usual({{kSpace, -9}, {kSpace + "a", -1}, {"a", -9}})).value();
  const auto ids = tokenizer.encode("a \xF0\x9F\x98\x80", false).value();
  std::string streamed;
  for (const TokenId id : ids) streamed += tokenizer.token_bytes(id);
  EXPECT_EQ(streamed, " a \xF0\x9F\x98\x80") << "an answer's pieces are as they are";
  EXPECT_EQ(tokenizer.decode(ids, true), "a \xF0\x9F\x98\x80") << "a text's first space is encode's";
  EXPECT_EQ(tokenizer.token_bytes(kFirstByte + 0xF0), "\xF0");
  EXPECT_THAT(tokenizer.encode("", false).value(), IsEmpty());
}

TEST(SentencePieces, WhatAFileLeavesOutIsAsSentencePieceHasIt) {
  std::vector<TokenId> ids = {kFirst};
  tokenizer_of("llama", usual({{kSpace, 0}}))->add_bos_eos(ids);
  EXPECT_THAT(ids, ElementsAre(1, kFirst));
  ids = {kFirst};
  tokenizer_of("llama", usual({{kSpace, 0}}), [](GgufBuilder& file) {
    file.boolean("tokenizer.ggml.add_bos_token", false);
  })->add_bos_eos(ids);
  EXPECT_THAT(ids, ElementsAre(kFirst));
  ids = {3};
  const std::vector<Piece> t5 = {{"<pad>", 0, kControl}, {"</s>", 0, kControl}, {"<unk>", 0, kUnknown}, {kSpace, 0}};
  const Tokenizer unigram = tokenizer_of("t5", t5).value();
  unigram.add_bos_eos(ids);
  EXPECT_THAT(ids, ElementsAre(3, 1));
  EXPECT_TRUE(unigram.is_end(1));
}

TEST(SentencePieces, AByteWithoutATokenIsReportedWithItsPlace) {
  const Tokenizer tokenizer =
      tokenizer_of("llama",
                   {{"<unk>", 0, kUnknown}, {"<s>", 0, kControl}, {"</s>", 0, kControl}, {kSpace, 0}, {"a", 0}})
          .value();
  const auto ids = tokenizer.encode("a  b\xC3\xA9", false);
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(ids.error().message, HasSubstr("3 of the text's bytes"));
  EXPECT_THAT(ids.error().message, HasSubstr("0x62 at 3, 0xC3 at 4, 0xA9 at 5"));
}

TEST(SentencePieces, VocabulariesThatAreNoneAreRefused) {
  const auto message = [](const char* model, std::vector<Piece> pieces, const Fill& more = {}) {
    const auto tokenizer = tokenizer_of(model, pieces, more);
    EXPECT_FALSE(tokenizer);
    if (tokenizer) return std::string();
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kInvalidModel);
    return tokenizer.error().message;
  };
  for (const char* model : {"llama", "t5"}) {
    EXPECT_THAT(message(model, usual({{kSpace, 0}, {"a", NAN}})), HasSubstr("holds no number for token 260"));
    EXPECT_THAT(message(model, usual({{kSpace, INFINITY}})), HasSubstr("holds no number"));
    EXPECT_THAT(message(model, {}), HasSubstr("0 tokens"));
  }
  EXPECT_THAT(message("llama", {{"a", 0}, {"b", 0}, {"c", 0}}), HasSubstr("no token for a space"));
  const Fill blob = [](GgufBuilder& file) {
    file.key("tokenizer.ggml.precompiled_charsmap", 9).number<uint32_t>(0).number<uint64_t>(8).number<uint64_t>(~0ull);
  };
  EXPECT_THAT(message("t5", usual({}), blob), HasSubstr("precompiled_charsmap"));
}

TEST(SentencePieces, OddVocabulariesAreReadAllTheSame) {
  // Twice the same text, none at all, one that is no UTF-8, a byte in small letters: the first of a text counts.
  const Tokenizer tokenizer =
      tokenizer_of("llama", usual({{kSpace, -1}, {"a", -1}, {"a", -2}, {"", 0}, {"\xFF", -1}, {"<0xfe>", 0, kByte}}))
          .value();
  EXPECT_THAT(tokenizer.encode("a\xFF", false).value(), ElementsAre(kFirst, kFirst + 1, kFirst + 4));
  EXPECT_EQ(tokenizer.token_bytes(kFirst + 5), "\xFE");
  EXPECT_EQ(tokenizer.token_bytes(kFirst + 3), "");
  const auto fewer = tokenizer_of("llama", usual({{kSpace, -1}}),
                                  [](GgufBuilder& file) { file.str("tokenizer.chat_template", "{{ bos_token }}"); });
  EXPECT_TRUE(fewer);
}

TEST(CharsMap, AWrongOffsetEndsTheSearch) {
  SeededRng random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string blob(4, '\0');
    const size_t units = 1 + random.next() % 64;
    blob[0] = static_cast<char>(units * 4);
    for (size_t i = 0; i < units * 4; ++i) blob += static_cast<char>(random.next() % 3 == 0 ? random.next() : 'a');
    blob += std::string("right\0", 6);
    const CharsMap map = CharsMap::load(std::as_bytes(std::span(blob))).value();
    for (const std::string text : {"aaaaaaa", "", "\xFFzz", "a"}) EXPECT_LE(map.longest(text).bytes, text.size());
  }
  EXPECT_FALSE(CharsMap::load({}));
}

TEST(SentencePieces, AMebibyteOfOneKindTakesNoMoreThanLinearTime) {
  std::vector<Piece> pieces = {{kSpace, -50}, {"a", -50}, {"b", -50}};
  for (int length = 2; length <= 16; ++length) {
    pieces.push_back({std::string(static_cast<size_t>(length), 'a'), -static_cast<float>(length % 5)});
    std::string spaces;
    for (int i = 0; i < length; ++i) spaces += kSpace;
    pieces.push_back({spaces, -static_cast<float>(length % 3)});
  }
  pieces.push_back({"a" + kSpace + "b", -7});  // so that nothing can be cut into words
  const Tokenizer pairs = tokenizer_of("llama", usual(pieces)).value();
  const Tokenizer unigram = tokenizer_of("t5", usual(pieces)).value();
  std::string mixed;
  while (mixed.size() < 1 << 20) mixed += "ab a \n\xC3";
  for (const Tokenizer* tokenizer : {&pairs, &unigram}) {
    for (const std::string& text :
         {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n'), mixed}) {
      test::expect_linear_time(*tokenizer, text);
      const auto ids = tokenizer->encode(text, true);
      ASSERT_TRUE(ids) << ids.error().message;
      EXPECT_TRUE(tokenizer == &unigram || tokenizer->decode(*ids, true) == text);
    }
  }
}

}  // namespace
}  // namespace runahead
