// --chat-template: a file, checked before anything starts.
#include "services/engine/text_codec_loading.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

class ChatTemplateFlag : public ::testing::Test {
 protected:
  std::string write(const std::string& content) {
    const std::string path = (dir_ / "own.jinja").string();
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // The prompt of one user message `x`.
  Result<std::string> rendered(const std::string& option) {
    const std::filesystem::path model = dir_ / "m.gguf";
    if (!std::filesystem::exists(model)) test::write_tiny_llama(model, 1);
    const Gguf file = TRY(Gguf::open(model));
    const auto codec = TRY(open_text_codec(file, option, [] { return std::tm{}; }));
    return codec->render_chat(ordered_json::array({{{"role", "user"}, {"content", "x"}}}), true);
  }
  test::TempDir dir_;
};

TEST_F(ChatTemplateFlag, TakesAFileOrTheTemplateItself) {
  EXPECT_EQ(rendered(write("[{{ messages[0].content }}]\n")).value(), "[x]")
      << "one newline at its end is no part of it";
  EXPECT_EQ(rendered("({{ messages[0].content }})").value(), "(x)");
}

TEST_F(ChatTemplateFlag, AnEditorsMarksChangeNothing) {
  EXPECT_EQ(rendered(write("\xEF\xBB\xBF{% if true %}\r\na\r\n{% endif %}\r\n")).value(), "a\n");
}

TEST_F(ChatTemplateFlag, ATemplateThatDoesNotParseNamesItsFileAndLine) {
  const std::string path = write("{{ messages }}\n\n{% for %}");
  const auto refused = rendered(path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.error().param, "chat-template");
  EXPECT_THAT(refused.error().message, HasSubstr("--chat-template: " + path + ": line 3"));
}

TEST_F(ChatTemplateFlag, WhatIsNoTemplateIsSaid) {
  const auto message = [this](const std::string& option) {
    const auto refused = rendered(option);
    EXPECT_FALSE(refused);
    return refused ? std::string() : refused.error().message;
  };
  EXPECT_THAT(message("no/such.jinja"), HasSubstr("there is no file no/such.jinja; give the path of a Jinja template"));
  EXPECT_THAT(message((dir_ / "").string()), HasSubstr("there is no file"));
  EXPECT_THAT(message(write("")), HasSubstr("is empty"));
  EXPECT_THAT(message(write("a\xff")), HasSubstr("no UTF-8 text (byte 1)"));
  EXPECT_THAT(message(write(std::string(2 << 20, 'x'))), HasSubstr("larger than 1 MiB"));
}

TEST_F(ChatTemplateFlag, AChatIsCheckedBeforeWorkersStart) {
  test::write_tiny_llama(dir_ / "m.gguf", 1);
  const std::string model = (dir_ / "m.gguf").string();
  const auto without = check_chat_template({model, {"tokenizer.chat_template=str:{% if %}"}}, "");
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("--chat-template FILE, or send the prompt as it is with --raw"));
  EXPECT_TRUE(check_chat_template({model, {"tokenizer.chat_template=str:{% if %}"}}, "{{ messages }}"));
  EXPECT_TRUE(check_chat_template({model, {"tokenizer.chat_template=str:{{ messages }}"}}, ""));
}

}  // namespace
}  // namespace runahead
