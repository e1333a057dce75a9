#include "base/config.h"

#include <gtest/gtest.h>

#include <fstream>

namespace runahead {
namespace {

std::filesystem::path write(const std::string& text) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "config_test.yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(ConfigFile, ReadsTopLevelSectionsAndLists) {
  const auto file = read_config_file(write("model: smollm2\nprefill: {threads: 2}\ncuts: [64, 128]\nquiet: true\n"));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->top_level.at("model").values, std::vector<std::string>{"smollm2"});
  EXPECT_EQ(file->top_level.at("cuts").values, (std::vector<std::string>{"64", "128"}));
  EXPECT_EQ(file->sections.at("prefill").at("threads").values, std::vector<std::string>{"2"});
  EXPECT_EQ(file->sections.at("prefill").at("threads").line, 2);
  EXPECT_EQ(file->top_level.at("cuts").line, 3);
}

TEST(ConfigFile, SaysWhereItIsWrong) {
  EXPECT_EQ(read_config_file("/nonexistent.yaml").error().code, ErrorCode::kNotFound);
  const auto broken = read_config_file(write("model: [1, 2\n"));
  EXPECT_EQ(broken.error().code, ErrorCode::kInvalidConfig);
  EXPECT_NE(broken.error().message.find(".yaml:"), std::string::npos);
  EXPECT_EQ(read_config_file(write("- a\n- b\n")).error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(read_config_file(write("cuts: [[1]]\n")).error().code, ErrorCode::kInvalidConfig);
  EXPECT_TRUE(read_config_file(write("\n# nothing\n")));
}

TEST(Suggestion, FindsNearWordsOnly) {
  const std::vector<std::string> words = {"threads", "transport", "strategy"};
  EXPECT_EQ(suggestion("thread", words), "threads");
  EXPECT_EQ(suggestion("stratgey", words), "strategy");
  EXPECT_EQ(suggestion("zzzzzz", words), "");
  EXPECT_EQ(did_you_mean("transprt", words), ", did you mean 'transport'?");
}

}  // namespace
}  // namespace runahead
