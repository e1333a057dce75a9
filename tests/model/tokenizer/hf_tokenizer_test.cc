// tokenizer.json, against Hugging Face's own library (tests/golden/make_hf_tokenizers.py), and what of it is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
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

ordered_json golden_file(const char* name) {
  return ordered_json::parse(std::ifstream(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/golden/" + name));
}
const ordered_json& golden_folders() {
  static const ordered_json kGolden = golden_file("hf_tokenizers.json");
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
  for (const auto& [name, one] : golden_folders().items()) {
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
  for (const char* name : {"gpt2", "llama3", "llama2", "metaspace-first", "metaspace-never", "gemma", "unigram-llama",
                           "unigram-first", "unigram-never"}) {
    write(golden_folders()[name]["tokenizer"], golden_folders()[name]["size"].get<int64_t>());
    write_config({{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const auto tokenizer = load();
    ASSERT_TRUE(tokenizer) << name << ": " << tokenizer.error().message;
    for (const char* text :
         {"The quick brown fox", "caf\xC3\xA9 \xF0\x9F\x98\x80 123", "x\xFF\x80y", "one<|extra|>two", ""})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, true).value(), false), text) << name;
  }
}

TEST_F(HfTokenizerTest, EndsAreThoseOfGeneration) {
  write(golden_folders()["gpt2"]["tokenizer"], 500);
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
  write(golden_folders()["gpt2"]["tokenizer"], 500);
  write_config(
      {{"chat_template", {{{"name", "default"}, {"template", "d"}}, {{"name", "tool_use"}, {"template", "t"}}}}});
  ASSERT_TRUE(load());
  EXPECT_EQ(file_->str("tokenizer.chat_template").value(), "d");
  EXPECT_EQ(file_->str("tokenizer.chat_template.tool_use").value(), "t");
}

TEST_F(HfTokenizerTest, FlagsDecideWhatStandsAroundAText) {
  write(golden_folders()["llama3"]["tokenizer"], 500);
  write_config({{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_bos_token", false}, {"add_eos_token", true}});
  const auto tokenizer = load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_FALSE(tokenizer->special().add_bos);
  EXPECT_TRUE(tokenizer->special().add_eos);
}

TEST_F(HfTokenizerTest, WhatIsNotDoneIsRefusedByName) {
  const auto changed = [](const char* name, const char* pointer, ordered_json value) {
    ordered_json tokenizer = golden_folders()[name]["tokenizer"];
    tokenizer[ordered_json::json_pointer(pointer)] = std::move(value);
    return tokenizer;
  };
  const auto refused = ErrorCode::kUnsupported;
  expect_refused(changed("gpt2", "/model/type", "WordPiece"), refused, "'WordPiece'");
  expect_refused(changed("gpt2", "/normalizer", {{"type", "Lowercase"}}), refused, "normalizer is 'Lowercase'");
  expect_refused(changed("gpt2", "/pre_tokenizer", {{"type", "Whitespace"}}), refused, "pre_tokenizer is 'Whitespace'");
  expect_refused(changed("gpt2", "/pre_tokenizer/add_prefix_space", true), refused, "'ByteLevel'");
  expect_refused(changed("gpt2", "/post_processor", {{"type", "BertProcessing"}}), refused, "'BertProcessing'");
  expect_refused(changed("gpt2", "/model/continuing_subword_prefix", "##"), refused, "model is 'BPE'");
  expect_refused(changed("gpt2", "/model/dropout", 0.1), refused, "model is 'BPE'");
  expect_refused(changed("llama2", "/model/byte_fallback", false), refused, "not supported");
  expect_refused(changed("metaspace-first", "/pre_tokenizer/split", true), refused, "'Metaspace'");
}

// tokenizer_config.json has the last word on added tokens, and may have some of its own (tests/golden/make_hf_added_tokens.py).
TEST_F(HfTokenizerTest, AddedTokensAreThoseOfTransformers) {
  size_t refused = 0;
  const ordered_json cases = golden_file("hf_added_tokens.json")["cases"];
  for (const ordered_json& one : cases) {
    const auto base = one["tokenizer"].get<std::string>(), name = base + ", " + one["name"].get<std::string>();
    write(golden_folders()[base]["tokenizer"], golden_folders()[base]["size"].get<int64_t>() + 20);
    write_config(one["config"]);
    const auto tokenizer = load();
    if (!one["keeps_ids"].get<bool>()) {  // transformers would take another row of the embedding than the file names
      ++refused;
      ASSERT_FALSE(tokenizer) << name;
      EXPECT_EQ(tokenizer.error().code, ErrorCode::kInvalidModel);
      EXPECT_THAT(tokenizer.error().message, HasSubstr("tokenizer_config.json: added_tokens_decoder says that"));
      continue;
    }
    ASSERT_TRUE(tokenizer) << name << ": " << tokenizer.error().message;
    for (const ordered_json& text : one["texts"]) {
      const auto words = text["text"].get<std::string>();
      EXPECT_EQ(tokenizer->encode(words, true).value(), text["ids"].get<std::vector<TokenId>>())
          << name << ": " << words;
    }
    for (const auto& [text, special] : one["special"].items()) {
      const std::vector<TokenId> ids = tokenizer->encode(text, true).value();
      EXPECT_EQ(tokenizer->is_control(ids.back()), special.get<bool>()) << name << ": " << text;
    }
  }
  EXPECT_EQ(refused, 9u);
}

TEST_F(HfTokenizerTest, AddedTokensThatCannotBeAreRefused) {
  write(golden_folders()["gpt2"]["tokenizer"], 430);
  const auto expect = [&](const ordered_json& decoder, ErrorCode code, const std::string& says) {
    write_config({{"added_tokens_decoder", decoder}});
    const auto loaded = load();
    ASSERT_FALSE(loaded) << says;
    EXPECT_EQ(loaded.error().code, code);
    EXPECT_THAT(loaded.error().message, HasSubstr(says));
  };
  const auto bad = ErrorCode::kInvalidModel;
  expect(5, bad, "its added_tokens_decoder is no object");
  expect({{"421", "<|new|>"}}, bad, "an added token is no object");
  expect({{"421", {{"content", 5}}}}, bad, "'added_tokens_decoder.content' is 5, not a text");
  expect({{"421", {{"content", "x"}, {"special", 1}}}}, bad, "'added_tokens_decoder.special' is 1, not true or false");
  for (const char* id : {"", "-1", "x", "421x", " 421", "99999999999999999999"})
    expect({{id, {{"content", "<|new|>"}}}}, bad, "which is no id");
  expect({{"421", {{"content", "<|new|>"}}}, {"0421", {{"content", "<|old|>"}}}}, bad, "has 421 twice");
  expect({{"429", {{"content", "<|new|>"}}}}, bad, "'<|new|>' is 429, and by tokenizer.json it is 421");
  expect({{"430", {{"content", "<|new|>"}}}}, bad, "'<|new|>' is 430, and by tokenizer.json it is 421");
  write(golden_folders()["gpt2"]["tokenizer"], 421);
  write_config({{"added_tokens_decoder", {{"421", {{"content", "<|new|>"}}}}}});
  EXPECT_TRUE(load()) << "the model has no row for it";
}

// lstrip, rstrip, single_word, normalized, in every mixture (tests/golden/make_hf_added_token_rules.py, which also makes more).
TEST_F(HfTokenizerTest, AddedTokensAreFoundAsTheLibraryFindsThem) {
  const char* more = std::getenv("RUNAHEAD_TOKEN_RULES");
  const ordered_json cases =
      (more == nullptr ? golden_file("hf_added_token_rules.json") : ordered_json::parse(std::ifstream(more)))["cases"];
  for (const ordered_json& one : cases) {
    const auto base = one["tokenizer"].get<std::string>();
    ordered_json tokenizer = golden_folders()[base]["tokenizer"];
    for (const ordered_json& token : one["added"]) tokenizer["added_tokens"].push_back(token);
    write(tokenizer, 600);
    write_config({{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const auto loaded = load();
    ASSERT_TRUE(loaded) << base << ": " << loaded.error().message;
    for (const ordered_json& text : one["texts"])
      EXPECT_EQ(loaded->encode(text[0].get<std::string>(), true).value(), text[1].get<std::vector<TokenId>>())
          << base << ": " << text[0] << " with " << one["added"];
  }
}

TEST_F(HfTokenizerTest, ATokenOfWhichTheNormaliserLeavesNothingIsRefused) {
  ordered_json tokenizer = golden_folders()["unigram-nfkc"]["tokenizer"];
  tokenizer["added_tokens"].push_back({{"id", 599}, {"content", "\u0001"}, {"special", true}, {"normalized", true}});
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(loaded.error().message, HasSubstr("of which the normaliser leaves nothing"));
}

// What a template writes takes the spaces around it; what a message quotes hides its own letters alone.
TEST_F(HfTokenizerTest, ControlTokensAreSpelledWithTheirSpaces) {
  ordered_json tokenizer = golden_folders()["gpt2"]["tokenizer"];
  tokenizer["added_tokens"].push_back(
      {{"id", 500}, {"content", "<|im|>"}, {"special", true}, {"lstrip", true}, {"rstrip", true}});
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  const Tokenizer::Spelled first = loaded->find_control("a \n<|im|>\u3000b", 0);
  EXPECT_EQ(first.at, 1u);
  EXPECT_EQ(first.bytes, 2 + 6 + 3u);
  EXPECT_EQ(first.own_at, 3u);
  EXPECT_EQ(first.own_bytes, 6u);
  EXPECT_EQ(loaded->find_control("a \n<|im|>", 2).at, 2u) << "what is before belongs to somebody else";
  EXPECT_EQ(loaded->find_control("a  ", 0).at, 3u);
}

TEST_F(HfTokenizerTest, StepsOfUnigramThatAreNotDoneAreRefusedByName) {
  const auto expect = [&](const char* name, const char* pointer, ordered_json value, const std::string& says) {
    ordered_json tokenizer = golden_folders()[name]["tokenizer"];
    tokenizer[ordered_json::json_pointer(pointer)] = std::move(value);
    expect_refused(tokenizer, ErrorCode::kUnsupported, says);
  };
  const auto replace = [](const char* kind, const char* from) {
    return ordered_json{{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", "x"}};
  };
  const auto metaspace = [](const ordered_json& members) {
    ordered_json step = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
    if (!members.is_null()) step.update(members);
    return step;
  };
  expect("unigram-nfkc", "/normalizer", {{"type", "Lowercase"}}, "normalizer is 'Lowercase'");
  expect("unigram-nfkc", "/normalizer", {{"type", "Prepend"}, {"prepend", "x"}}, "normalizer is 'Prepend'");
  expect("unigram-nfkc", "/normalizer", replace("Regex", "a+"), "normalizer is 'Replace'");
  expect("unigram-nfkc", "/normalizer", replace("String", ""), "normalizer is 'Replace'");
  expect("unigram-spm", "/normalizer/normalizers/1",
         golden_folders()["unigram-spm"]["tokenizer"]["normalizer"]["normalizers"][0], "normalizer is 'Precompiled'");
  expect("unigram-nfkc", "/pre_tokenizer", nullptr, "pre_tokenizer is none");
  expect("unigram-nfkc", "/pre_tokenizer", {{"type", "WhitespaceSplit"}}, "pre_tokenizer is 'WhitespaceSplit'");
  expect("unigram-nfkc", "/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer is 'Whitespace'");
  expect("unigram-nfkc", "/pre_tokenizer", metaspace({{"replacement", "_"}}), "pre_tokenizer is 'Metaspace'");
  expect("unigram-nfkc", "/pre_tokenizer", metaspace({{"prepend_scheme", "last"}}), "pre_tokenizer is 'Metaspace'");
  expect("unigram-nfkc", "/pre_tokenizer", metaspace({{"add_prefix_space", false}}), "pre_tokenizer is 'Metaspace'");
  expect("unigram-words", "/pre_tokenizer/pretokenizers/1/prepend_scheme", "first", "pre_tokenizer is 'Metaspace'");
  expect("unigram-words", "/pre_tokenizer/pretokenizers/0", metaspace({}), "pre_tokenizer is 'Metaspace'");
  expect("unigram-nfkc", "/decoder", {{"type", "WordPiece"}}, "decoder is 'WordPiece'");
  expect("unigram-nfkc", "/model/dropout", 0.1, "'model.dropout' of a Unigram tokenizer is not known");
  expect("unigram-nfkc", "/model/type", "WordLevel", "'WordLevel'");
}

TEST_F(HfTokenizerTest, NothingOfUnigramIsTrusted) {
  const auto expect = [&](const char* pointer, ordered_json value, const std::string& says) {
    ordered_json tokenizer = golden_folders()["unigram-spm"]["tokenizer"];
    tokenizer[ordered_json::json_pointer(pointer)] = std::move(value);
    expect_refused(tokenizer, ErrorCode::kInvalidModel, says);
  };
  expect("/model/vocab", nullptr, "no vocab");
  expect("/model/vocab", ordered_json::array(), "no vocab");
  expect("/model/vocab", {{"a", 1}}, "no vocab");
  expect("/model/vocab", ordered_json(601, ordered_json::array({"a", 1})), "601 tokens, and the embedding 600 rows");
  expect("/model/vocab/7", "a", "the token 7 is no text and its score");
  expect("/model/vocab/7", {"a", "b"}, "the token 7 is no text and its score");
  expect("/model/vocab/7", {"a", 1, 2}, "the token 7 is no text and its score");
  expect("/model/vocab/7", {"<s>", -1}, "two tokens are '<s>'");
  expect("/model/unk_id", 600, "unk_id is no token");
  expect("/model/unk_id", -1, "unk_id is no token");
  for (const char* rules : {"", "abc", "ab=c", "a===", "\u00e9abc"})
    expect("/normalizer/normalizers/0/precompiled_charsmap", rules, "no text in base64");
}

// What they say is only seen when the tokenizer is made of them.
TEST_F(HfTokenizerTest, RulesAndStepsOfUnigramAreBounded) {
  ordered_json tokenizer = golden_folders()["unigram-spm"]["tokenizer"];
  const auto expect = [&](const std::string& says) {
    write(tokenizer, 600);
    const auto loaded = load();
    ASSERT_FALSE(loaded) << says;
    EXPECT_EQ(loaded.error().code, ErrorCode::kInvalidModel);
    EXPECT_THAT(loaded.error().message, HasSubstr(says));
  };
  for (const char* rules : {"AAAA", "/////w==", "AAAAAA==", "CAAAAAEAAAAB"}) {
    tokenizer["normalizer"]["normalizers"][0]["precompiled_charsmap"] = rules;
    expect("cut short");
  }
  ordered_json steps = ordered_json::array();
  for (int i = 0; i < 65; ++i) steps.push_back({{"type", "NFC"}});
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  tokenizer["pre_tokenizer"]["pretokenizers"][0]["split"] = true;
  expect("more steps than a limit allows");
}

TEST_F(HfTokenizerTest, AStepThatWouldMakeATextEndlessEndsWithAnError) {
  ordered_json tokenizer = golden_folders()["unigram-nfkc"]["tokenizer"];
  ordered_json steps = ordered_json::array();
  for (int i = 0; i < 8; ++i)
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "z"}}}, {"content", std::string(1000, 'z')}});
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  const auto ids = loaded->encode("z", true);
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kTooLarge);
}

// Of `tokenizers` it is the byte's token: whoever writes <0x0A> there writes a line end.
TEST_F(HfTokenizerTest, AUsersNameOfAByteIsText) {
  write(golden_folders()["unigram-never"]["tokenizer"], 600);
  write_config({{"bos_token", "<s>"}});
  const auto loaded = load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  const std::vector<TokenId> ids = loaded->encode("<0x07>\a", true).value();
  constexpr TokenId kBell = 3 + 0x07;
  EXPECT_EQ(std::ranges::count(ids, kBell), 1);
  EXPECT_EQ(ids.back(), kBell);
  EXPECT_EQ(loaded->decode(ids, false), "<0x07>\a");
}

TEST_F(HfTokenizerTest, WithoutAnUnknownTokenWhatIsUnknownIsAnError) {
  ordered_json tokenizer = golden_folders()["unigram-nfkc"]["tokenizer"];
  tokenizer["model"]["unk_id"] = nullptr;
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_TRUE(loaded->encode("the dogs", true));
  EXPECT_THAT(loaded->encode("the \u4e8b", true).error().message, HasSubstr("no token for"));
}

TEST_F(HfTokenizerTest, StepsBehindByteLevelAreTakenIfNoMergeFeelsThem) {
  ordered_json tokenizer = golden_folders()["falcon"]["tokenizer"];
  tokenizer["model"]["vocab"]["a1"] = 599;
  tokenizer["model"]["merges"].push_back({"a", "1"});
  expect_refused(tokenizer, ErrorCode::kUnsupported, "pre_tokenizer is 'Sequence'");
  tokenizer = golden_folders()["falcon"]["tokenizer"];
  tokenizer["pre_tokenizer"]["pretokenizers"][3]["pattern"]["Regex"] = "x";
  expect_refused(tokenizer, ErrorCode::kUnsupported, "pre_tokenizer is 'Split'");
}

TEST_F(HfTokenizerTest, APaddingTokenThatIsNoneDoesNoHarm) {
  write(golden_folders()["gpt2"]["tokenizer"], 500);
  write_config({{"pad_token", "[PAD]"}});
  EXPECT_TRUE(load());
  write_config({{"eos_token", "[PAD]"}});
  EXPECT_THAT(load().error().message, HasSubstr("eos_token is '[PAD]', which is no token"));
}

TEST_F(HfTokenizerTest, ExpressionsThatWeDoNotHaveAreShown) {
  ordered_json tokenizer = golden_folders()["qwen2"]["tokenizer"];
  tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+b";
  write(tokenizer, 600);
  const auto loaded = load();
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(loaded.error().message, HasSubstr("'(a+)+b'"));
}

TEST_F(HfTokenizerTest, NothingInItIsTrusted) {
  const auto changed = [](const char* pointer, ordered_json value) {
    ordered_json tokenizer = golden_folders()["gpt2"]["tokenizer"];
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
