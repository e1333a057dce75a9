// Where sampling defaults come from, field by field: flag, generation_config.json, the GGUF itself.
#include "services/gateway/request/generation_defaults.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

namespace runahead {
namespace {

// A GGUF of metadata alone.
class MetadataFile {
 public:
  MetadataFile& f32(const std::string& key, float value) { return put(key, 6, value); }
  MetadataFile& i32(const std::string& key, int32_t value) { return put(key, 5, value); }
  std::string bytes() const {
    std::string file = "GGUF";
    append(file, uint32_t{3});
    append(file, uint64_t{0});
    append(file, count_);
    return file + values_;
  }

 private:
  template <class T>
  static void append(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  MetadataFile& put(const std::string& key, uint32_t type, T value) {
    append(values_, uint64_t{key.size()});
    values_ += key;
    append(values_, type);
    append(values_, value);
    ++count_;
    return *this;
  }
  std::string values_;
  uint64_t count_ = 0;
};

class GenerationDefaultsTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void config(const std::string& text) { std::ofstream(folder_ / "generation_config.json") << text; }
  Result<GenerationDefaults> load(const GenerationFlags& flags, const MetadataFile& model = {}) {
    const std::string bytes = model.bytes();
    const auto file = Gguf::parse(std::as_bytes(std::span(bytes)), "model.gguf");
    EXPECT_TRUE(file) << file.error().message;
    return load_generation_defaults(flags, folder_ / "model.gguf", *file);
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / ("generation-defaults-" + std::to_string(getpid()));
};

TEST_F(GenerationDefaultsTest, ModelsThatSayNothingHaveNone) {
  const auto defaults = load({});
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_FALSE(defaults->choose_sampling());
  EXPECT_FALSE(defaults->max_tokens);
}

TEST_F(GenerationDefaultsTest, AFolderHasItsOwn) {
  config(R"({"temperature":0.25})");
  const std::string bytes = MetadataFile().bytes();
  const auto file = Gguf::parse(std::as_bytes(std::span(bytes)), "model.gguf");
  EXPECT_EQ(load_generation_defaults({}, folder_, *file)->temperature, 0.25f);
}

TEST_F(GenerationDefaultsTest, FlagBeforeFileBeforeModelFieldByField) {
  MetadataFile model;
  model.f32("general.sampling.temp", 0.5f).f32("general.sampling.top_p", 0.5f).f32("general.sampling.min_p", 0.25f);
  model.i32("general.sampling.top_k", 5).f32("general.sampling.penalty_repeat", 1.5f);
  config(R"({"temperature":0.25,"top_p":0.25,"max_new_tokens":100,"eos_token_id":[1,2],"transformers_version":"4.0"})");
  const auto defaults = load({.defaults = R"({"temperature":0.125})"}, model);
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_EQ(defaults->temperature, 0.125f);
  EXPECT_EQ(defaults->top_p, 0.25f);
  EXPECT_EQ(defaults->min_p, 0.25f);
  EXPECT_EQ(defaults->top_k, 5);
  EXPECT_EQ(defaults->repetition_penalty, 1.5f);
  EXPECT_EQ(defaults->max_tokens, 100);
  EXPECT_EQ(load({.max_tokens = 7}, model)->max_tokens, 7);
  EXPECT_FALSE(load({.defaults = "none"}, model)->choose_sampling());
}

TEST_F(GenerationDefaultsTest, GreedyIsSaidByDoSampleToo) {
  config(R"({"do_sample":false})");
  EXPECT_EQ(load({})->temperature, 0.0f);
  config(R"({"do_sample":true,"temperature":null,"top_k":50})");
  EXPECT_FALSE(load({})->temperature);
  EXPECT_EQ(load({})->top_k, 50);
}

TEST_F(GenerationDefaultsTest, WrongValuesAreRefusedWithTheirSource) {
  const auto said = [&](const GenerationFlags& flags, const MetadataFile& model = {}) {
    const auto defaults = load(flags, model);
    return defaults ? std::string("accepted") : defaults.error().message;
  };
  EXPECT_EQ(said({.defaults = R"({"temperature":3})"}), "--generation-defaults: 'temperature' must be from 0 to 2");
  EXPECT_TRUE(
      said({.defaults = R"({"temprature":1})"}).starts_with("--generation-defaults: 'temprature' is not a known"));
  EXPECT_TRUE(said({.defaults = "0.7"}).starts_with("--generation-defaults: the JSON must be an object"))
      << said({.defaults = "0.7"});
  EXPECT_TRUE(
      said({}, MetadataFile().f32("general.sampling.temp", 9)).starts_with("the model's general.sampling keys: "));
  config("{");
  EXPECT_NE(said({}).find("generation_config.json: "), std::string::npos) << said({});
  config(R"({"top_p":"high"})");
  EXPECT_NE(said({}).find("generation_config.json: 'top_p' must be a number"), std::string::npos) << said({});
  config("{" + std::string(2 << 20, ' ') + "}");
  EXPECT_NE(said({}).find("larger than 1 MiB"), std::string::npos);
  EXPECT_EQ(said({.defaults = "none"}), "accepted");
}

}  // namespace
}  // namespace runahead
