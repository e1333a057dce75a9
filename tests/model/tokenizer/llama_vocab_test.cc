// What llama.cpp itself says of names and tokens (tests/golden/make_llama_vocab.py), held against our tokenizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using nlohmann::json;
using test::GgufBuilder;

const json& golden_vocabularies() {
  static const json kGolden = [] {
    std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/llama_vocab.json");
    return json::parse(file);
  }();
  return kGolden;
}

void set_keys(GgufBuilder& file, const json& keys) {
  for (const auto& [key, value] : keys.items()) {
    const std::string name = "tokenizer.ggml." + key;
    if (value.is_boolean()) {
      file.boolean(name, value.get<bool>());
    } else {
      file.u32(name, value.get<uint32_t>());
    }
  }
}

Result<Tokenizer> load_vocabulary(const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                                  const std::vector<std::string>& merges, const std::string& pre,
                                  const std::vector<json>& keys) {
  GgufBuilder file;
  file.str("tokenizer.ggml.model", "gpt2");
  file.str("tokenizer.ggml.pre", pre);
  file.strings("tokenizer.ggml.tokens", tokens);
  file.i32s("tokenizer.ggml.token_type", types);
  file.strings("tokenizer.ggml.merges", merges);
  for (const json& some : keys) set_keys(file, some);
  const std::vector<std::byte> bytes = file.build();
  return Tokenizer::load(TRY(Gguf::parse(bytes, "golden.gguf")));
}

Result<Tokenizer> with_golden_vocabulary(const std::string& pre, const json& more_keys) {
  return load_vocabulary(golden_vocabularies()["tokens"], golden_vocabularies()["types"],
                         golden_vocabularies()["merges"], pre, {golden_vocabularies()["keys"], more_keys});
}

TEST(LlamaVocab, EveryNameOfItsTableThatWeKnowMakesItsIds) {
  EXPECT_EQ(golden_vocabularies()["names"].size(), 81u);
  for (const auto& [name, wanted] : golden_vocabularies()["names"].items()) {
    const auto tokenizer = with_golden_vocabulary(name, json::object());
    ASSERT_TRUE(tokenizer) << name << ": " << tokenizer.error().message;
    EXPECT_EQ(tokenizer->special().add_bos, wanted["add_bos"].get<bool>()) << name;
    for (size_t i = 0; i < wanted["ids"].size(); ++i) {  // of some names fewer than all
      const auto text = golden_vocabularies()["texts"][i].get<std::string>();
      std::vector<TokenId> ids = tokenizer->encode(text, true).value();
      tokenizer->add_bos_eos(ids);
      EXPECT_EQ(ids, wanted["ids"][i].get<std::vector<TokenId>>()) << name << " " << golden_vocabularies()["texts"][i];
    }
  }
}

TEST(LlamaVocab, BeginAndEndAreAddedAsItAddsThem) {
  for (const json& wanted : golden_vocabularies()["flags"]) {
    const auto tokenizer = with_golden_vocabulary("qwen2", wanted["keys"]);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    std::vector<TokenId> ids = tokenizer->encode("ab", true).value();
    tokenizer->add_bos_eos(ids);
    EXPECT_EQ(ids, wanted["ids"].get<std::vector<TokenId>>()) << wanted["keys"];
  }
}

TEST(LlamaVocab, MistypedMarkersAreMendedAsItMendsThem) {
  EXPECT_GT(golden_vocabularies()["markers"].size(), 180u);
  for (const json& wanted : golden_vocabularies()["markers"]) {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(test::byte_stand_in(byte));
    std::vector<int32_t> types(256, 1);
    for (const json& word : wanted["words"]) {
      tokens.push_back(word[0]);
      types.push_back(word[1]);
    }
    const json ends = {{"bos_token_id", 0}, {"eos_token_id", 1}};
    const auto tokenizer = load_vocabulary(tokens, types, {"a b"}, "gpt-2", {ends, wanted["keys"]});
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (size_t i = 0; i < wanted["words"].size(); ++i) {
      const auto id = static_cast<TokenId>(256 + i);
      EXPECT_EQ(tokenizer->is_control(id), wanted["control"][i].get<bool>()) << wanted;
      EXPECT_EQ(tokenizer->is_end(id), wanted["end"][i].get<bool>()) << wanted;
    }
  }
}

}  // namespace
}  // namespace runahead
