#include "base/log.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json_text.h"

namespace runahead {
namespace {

constexpr size_t kCut = 4 << 10;  // what a line keeps of a message

std::string logged(bool json, std::string_view message) {
  const auto before = spdlog::default_logger();
  testing::internal::CaptureStderr();
  init_logging("role", "info", json);
  log::info("{}", message);
  spdlog::default_logger()->flush();
  const std::string line = testing::internal::GetCapturedStderr();
  spdlog::set_default_logger(before);
  return line;
}

TEST(Log, AJsonLineIsOneObjectWhateverItQuotes) {
  const std::string line = logged(true, "a \"name\" of caf\xE9\n\x1b[31m");
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const auto object = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(object.is_object()) << line;
  EXPECT_EQ(object["message"], "a \"name\" of caf\xEF\xBF\xBD\n\x1b[31m");
  EXPECT_EQ(object["level"], "info");
  EXPECT_EQ(object["process"], "role");
}

TEST(Log, ATextLineIsOneLineWithoutControlCharacters) {
  const std::string line = logged(false, "caf\xE9\nforged line\x1b[31m");
  EXPECT_NE(line.find("caf\xEF\xBF\xBD\\nforged line\\u001b[31m\n"), std::string::npos) << line;
}

TEST(Log, AMessageOfMegabytesIsCut) {
  const std::string name(4 << 20, 'x');
  EXPECT_LT(logged(false, name).size(), kCut + 100);
  EXPECT_LT(logged(true, name).size(), kCut + 200);
  EXPECT_NE(logged(false, name).find("(4194304 bytes)"), std::string::npos);
}

TEST(JsonText, BytesThatAreNoUtf8BecomeTheReplacementCharacter) {
  EXPECT_EQ(to_text({{"path", "/tmp/caf\xE9.gguf"}}), "{\"path\":\"/tmp/caf\xEF\xBF\xBD.gguf\"}");
  EXPECT_EQ(to_text("\xC3\xA9"), "\"\xC3\xA9\"");
}

TEST(PrintableLine, CutsInTheMiddleOfACharacterWithoutHalfOfIt) {
  EXPECT_EQ(printable_line("a\xC3\xA9", 2), "a\xEF\xBF\xBD... (3 bytes)");
  EXPECT_EQ(printable_line("a\tb\x7F", 9), "a\\tb\x7F");
  EXPECT_EQ(printable_line("C:\\new \"x\"", 99), "C:\\new \"x\"");
  EXPECT_EQ(printable_line("", 9), "");
}

}  // namespace
}  // namespace runahead
