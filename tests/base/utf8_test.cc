#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

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

TEST(Utf8, WhatMoreBytesCouldCompleteIsIncomplete) {
  for (const char32_t c : {U'\u00e9', U'\u4e16', U'\U0001F600'}) {
    const std::string text = encode(c);
    for (size_t bytes = 1; bytes < text.size(); ++bytes) {
      const Utf8Sequence begun = utf8_sequence(std::string_view(text).substr(0, bytes));
      EXPECT_EQ(begun.kind, Utf8Sequence::Kind::kIncomplete);
      EXPECT_EQ(begun.bytes, bytes);
    }
  }
}

// The examples of Unicode 15.0, table 3-8 and its text: one U+FFFD a maximal subpart.
TEST(Utf8, InvalidBytesAreToldApartAsUnicodeSays) {
  const auto count = [](std::string_view bytes) {
    int subparts = 0;
    for (; !bytes.empty(); ++subparts) {
      const Utf8Sequence next = utf8_sequence(bytes);
      EXPECT_NE(next.kind, Utf8Sequence::Kind::kCharacter);
      bytes.remove_prefix(next.bytes);
    }
    return subparts;
  };
  EXPECT_EQ(count("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"), 8);
  EXPECT_EQ(count("\xED\xA0\x80\xED\xBF\xBF\xED\xAF"), 8);
  EXPECT_EQ(count("\xF4\x91\x92\x93\xFF"), 5);
  EXPECT_EQ(count("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"), 4);
}

TEST(Utf8, ShownTextIsValidAndItsCharactersAreCounted) {
  EXPECT_EQ(valid_utf8("caf\xC3\xA9"), "caf\xC3\xA9");
  EXPECT_EQ(valid_utf8("a\xE1\x80"
                       "b\xFF"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_EQ(character_count("a\xE1\x80"
                            "b\xFF\xC3\xA9"),
            5);
  EXPECT_EQ(character_count(""), 0);
}

}  // namespace
}  // namespace runahead
