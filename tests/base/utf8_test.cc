#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/rng.h"

namespace runahead {
namespace {

std::string encode(char32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  if (c < 0x10000)
    return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  return {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
          static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
}

TEST(Utf8, EveryScalarValueIsACharacterAndNothingElseIs) {
  for (char32_t c = 0; c < 0x120000; ++c) {
    const std::string text = encode(c);
    const bool is_scalar = c < 0xD800 || (c > 0xDFFF && c < 0x110000);
    ASSERT_EQ(utf8_valid_prefix(text), is_scalar ? text.size() : 0) << std::hex << static_cast<uint32_t>(c);
  }
  EXPECT_EQ(utf8_valid_prefix("\xC0\x80"), 0u);  // overlong forms of U+0000
  EXPECT_EQ(utf8_valid_prefix("\xE0\x80\x80"), 0u);
  EXPECT_EQ(utf8_valid_prefix("\xF0\x80\x80\x80"), 0u);
  EXPECT_EQ(utf8_valid_prefix("a\xC3\xA9\xFFz"), 3u);
}

TEST(Utf8Stream, HoldsACharacterBackUntilItIsWhole) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "\xF0\x9F\x98\x80z");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push("\xE4\xB8"), "");
  EXPECT_EQ(stream.flush(), kReplacementCharacter);
  EXPECT_EQ(stream.flush(), "");
}

// The examples of Unicode 15.0, table 3-8 and its text: one U+FFFD a maximal subpart.
TEST(Utf8Stream, InvalidBytesBecomeReplacementCharactersAsUnicodeSays) {
  const auto count = [](std::string_view bytes) {
    Utf8Stream stream;
    std::string text = stream.push(bytes);
    text += stream.flush();
    EXPECT_EQ(text.size() % 3, 0u);
    return text.size() / 3;
  };
  EXPECT_EQ(count("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"), 8u);
  EXPECT_EQ(count("\xED\xA0\x80\xED\xBF\xBF\xED\xAF"), 8u);
  EXPECT_EQ(count("\xF4\x91\x92\x93\xFF"), 5u);
  EXPECT_EQ(count("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"), 4u);
}

TEST(Utf8Stream, HowTheBytesAreCutDoesNotMatter) {
  SeededRng random(11);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (uint64_t left = random.next() % 20; left > 0; --left) {
      bytes += random.next() % 3 == 0 ? std::string(1, static_cast<char>(random.next()))
                                      : encode(static_cast<char32_t>(random.next() % 0x11000));
    }
    Utf8Stream whole, cut;
    std::string want = whole.push(bytes);
    want += whole.flush();
    std::string got;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + random.next() % 3;
      got += cut.push(std::string_view(bytes).substr(at, size));
      EXPECT_EQ(utf8_valid_prefix(got), got.size());
      at += size;
    }
    got += cut.flush();
    ASSERT_EQ(got, want);
  }
}

}  // namespace
}  // namespace runahead
