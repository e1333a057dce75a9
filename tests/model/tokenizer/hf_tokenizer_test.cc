// tokenizer.json, against Hugging Face's own library (tests/golden/make_hf_tokenizers.py), and what of it is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/support/hf_folder_builder.h"
#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

const ordered_json& golden() {
  static const ordered_json kGolden =
      ordered_json::parse(std::ifstream(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/golden/hf_tokenizers.json"));
  return kGolden;
}

class HfTokenizerTest : public ::testing::Test {
 protected:
  void write(const ordered_json& tokenizer, int64_t rows) {
    test::write_tiny_hf_folder(dir_ / "m", rows);
    test::write_file(dir_ / "m/tokenizer.json", to_ordered_text(tokenizer));
  }
  void write_config(const ordered_json& config) {
    test::write_file(dir_ / "m/tokenizer_config.json", to_ordered_text(config));
  }
  Result<Tokenizer> load() {
    file_ = Gguf::open(dir_ / "m");
    return file_ ? Tokenizer::load(*file_) : Result<Tokenizer>(std::unexpected(file_.error()));
  }
  void expect_refused(const ordered_json& tokenizer, ErrorCode code, const std::string& says) {
    write(tokenizer, 600);
    const auto loaded = load();
    ASSERT_FALSE(loaded) << says;
    EXPECT_EQ(loaded.error().code, code) << loaded.error().message;
    EXPECT_THAT(loaded.error().message, HasSubstr(says));
    EXPECT_THAT(loaded.error().message, HasSubstr((dir_ / "m").string()));
  }

  test::TempDir dir_;
  Result<Gguf> file_ = fail(ErrorCode::kNotFound, "not opened");
};

TEST_F(HfTokenizerTest, IdsAreTheLibrarysOwn) {
  for (const auto& [name, one] : golden().items()) {
    if (!one.is_object()) continue;
    write(one["tokenizer"], one["size"].get<int64_t>() + 3);  // rows beyond the tokens, as many models have
    write_config({{"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}});
    const auto tokenizer = load();
    ASSERT_TRUE(tokenizer) << name << ": " << tokenizer.error().message;
    for (const ordered_json& text : one["texts"]) {
      const std::string words = text["text"].get<std::string>();
      const auto theirs = text["ids"].get<std::vector<TokenId>>();
      auto ours = tokenizer->encode(words, true);
      ASSERT_TRUE(ours) << name << ": " << ours.error().message;
      EXPECT_EQ(*ours, theirs) << name << ": " << words;
      if (words.starts_with("<s>")) continue;  // never put there twice
      tokenizer->add_bos_eos(*ours);
      EXPECT_EQ(*ours, text["around"].get<std::vector<TokenId>>()) << name << ": " << words;
    }
  }
}

TEST_F(HfTokenizerTest, TextsComeBack) {
  for (const char* name : {"gpt2", "llama3", "llama2", "metaspace-first", "metaspace-never", "gemma"}) {
    write(golden()[name]["tokenizer"], golden()[name]["size"].get<int64_t>());
    write_config({{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const auto tokenizer = load();
    ASSERT_TRUE(tokenizer) << name << ": " << tokenizer.error().message;
    for (const char* text :
         {"The quick brown fox", "caf\xC3\xA9 \xF0\x9F\x98\x80 123", "x\xFF\x80y", "one<|extra|>two", ""})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, true).value(), false), text) << name;
  }
}

TEST_F(HfTokenizerTest, EndsAreThoseOfGeneration) {
  write(golden()["gpt2"]["tokenizer"], 500);
  write_config({{"bos_token", nullptr}, {"eos_token", "</s>"}, {"chat_template", "from the configuration"}});
  test::write_file(dir_ / "m/generation_config.json", R"({"eos_token_id": [300, 7]})");
  const auto tokenizer = load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const TokenId id : {300, 7, tokenizer->special().eos}) EXPECT_TRUE(tokenizer->is_end(id)) << id;
  EXPECT_EQ(tokenizer->special().bos, kNoToken);
  EXPECT_EQ(file_->str("tokenizer.chat_template").value(), "from the configuration");
  test::write_file(dir_ / "m/chat_template.jinja", "from its own file");
  ASSERT_TRUE(load());
  EXPECT_EQ(file_->str("tokenizer.chat_template").value(), "from its own file");
}

TEST_F(HfTokenizerTest, NamedTemplatesAreKeptByName) {
  write(golden()["gpt2"]["tokenizer"], 500);
  write_config(
      {{"chat_template", {{{"name", "default"}, {"template", "d"}}, {{"name", "tool_use"}, {"template", "t"}}}}});
  ASSERT_TRUE(load());
  EXPECT_EQ(file_->str("tokenizer.chat_template").value(), "d");
  EXPECT_EQ(file_->str("tokenizer.chat_template.tool_use").value(), "t");
}

TEST_F(HfTokenizerTest, FlagsDecideWhatStandsAroundAText) {
  write(golden()["llama3"]["tokenizer"], 500);
  write_config({{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_bos_token", false}, {"add_eos_token", true}});
  const auto tokenizer = load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_FALSE(tokenizer->special().add_bos);
  EXPECT_TRUE(tokenizer->special().add_eos);
}

TEST_F(HfTokenizerTest, WhatIsNotDoneIsRefusedByName) {
  const auto changed = [](const char* name, const char* pointer, ordered_json value) {
    ordered_json tokenizer = golden()[name]["tokenizer"];
    tokenizer[ordered_json::json_pointer(pointer)] = std::move(value);
    return tokenizer;
  };
  const auto refused = ErrorCode::kUnsupported;
  expect_refused(changed("gpt2", "/model/type", "Unigram"), refused, "'Unigram'");
  expect_refused(changed("gpt2", "/model/type", "WordPiece"), refused, "'WordPiece'");
  expect_refused(changed("gpt2", "/normalizer", {{"type", "Lowercase"}}), refused, "normalizer is 'Lowercase'");
  expect_refused(changed("gpt2", "/pre_tokenizer", {{"type", "Whitespace"}}), refused, "pre_tokenizer is 'Whitespace'");
  expect_refused(changed("gpt2", "/pre_tokenizer/add_prefix_space", true), refused, "'ByteLevel'");
  expect_refused(changed("gpt2", "/post_processor", {{"type", "BertProcessing"}}), refused, "'BertProcessing'");
  expect_refused(changed("gpt2", "/model/continuing_subword_prefix", "##"), refused, "model is 'BPE'");
  expect_refused(changed("gpt2", "/model/dropout", 0.1), refused, "model is 'BPE'");
  expect_refused(changed("gpt2", "/added_tokens/0/lstrip", true), refused, "lstrip");
  expect_refused(changed("llama2", "/model/byte_fallback", false), refused, "not supported");
  expect_refused(changed("metaspace-first", "/pre_tokenizer/split", true), refused, "'Metaspace'");
}

TEST_F(HfTokenizerTest, StepsBehindByteLevelAreTakenIfNoMergeFeelsThem) {
  ordered_json tokenizer = golden()["falcon"]["tokenizer"];
  tokenizer["model"]["vocab"]["a1"] = 599;
  tokenizer["model"]["merges"].push_back({"a", "1"});
  expect_refused(tokenizer, ErrorCode::kUnsupported, "pre_tokenizer is 'Sequence'");
  tokenizer = golden()["falcon"]["tokenizer"];
  tokenizer["pre_tokenizer"]["pretokenizers"][3]["pattern"]["Regex"] = "x";
  expect_refused(tokenizer, ErrorCode::kUnsupported, "pre_tokenizer is 'Split'");
}

TEST_F(HfTokenizerTest, APaddingTokenThatIsNoneDoesNoHarm) {
  write(golden()["gpt2"]["tokenizer"], 500);
  write_config({{"pad_token", "[PAD]"}});
  EXPECT_TRUE(load());
  write_config({{"eos_token", "[PAD]"}});
  EXPECT_THAT(load().error().message, HasSubstr("eos_token is '[PAD]', which is no token"));
}

TEST_F(HfTokenizerTest, ExpressionsThatWeDoNotHaveAreShown) {
  ordered_json tokenizer = golden()["qwen2"]["tokenizer"];
  tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+b";
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(loaded.error().message, HasSubstr("'(a+)+b'"));
}

TEST_F(HfTokenizerTest, NothingInItIsTrusted) {
  const auto changed = [](const char* pointer, ordered_json value) {
    ordered_json tokenizer = golden()["gpt2"]["tokenizer"];
    tokenizer[ordered_json::json_pointer(pointer)] = std::move(value);
    return tokenizer;
  };
  const auto bad = ErrorCode::kInvalidModel;
  expect_refused(changed("/model/vocab/new", 600), bad, "'new' has no id within");
  expect_refused(changed("/model/vocab/new", -1), bad, "'new' has no id within");
  expect_refused(changed("/model/vocab/new", "1"), bad, "'new' has no id within");
  expect_refused(changed("/model/vocab/new", 5), bad, "two tokens have the id 5");
  expect_refused(changed("/model/vocab", 5), bad, "no vocab");
  expect_refused(changed("/model/merges", 5), bad, "no merges");
  expect_refused(changed("/model/merges/0", "abc"), bad, "no pair");
  expect_refused(changed("/model/merges/0", {"a", "b", "c"}), bad, "no pair");
  expect_refused(changed("/added_tokens", 5), bad, "no list");
  expect_refused(changed("/added_tokens/0/id", 3), bad, "two tokens have the id 3");
  expect_refused(changed("/model", nullptr), bad, "no model");
  expect_refused(ordered_json::array(), bad, "no JSON object");
}

}  // namespace
}  // namespace runahead
