// IncrementalDetokenizer against a naive oracle: the whole answer at once.
#include "services/gateway/answer/incremental_detokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/utf8.h"

namespace runahead {
namespace {

struct Shown {
  std::string text;
  size_t tokens = 0;
  bool stopped = false;
};

Shown show(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  IncrementalDetokenizer text(stops);
  Shown shown;
  const auto take = [&](const TextPiece& piece) {
    shown.text += piece.text;
    shown.tokens += piece.tokens.size();
    shown.stopped = piece.stopped;
    EXPECT_EQ(valid_utf8(piece.text), piece.text) << "every piece is valid UTF-8 by itself";
  };
  for (size_t i = 0; i < pieces.size() && !shown.stopped; ++i)
    take(text.push({.token = static_cast<TokenId>(i)}, pieces[i]));
  if (!shown.stopped) take(text.flush());
  return shown;
}

TEST(IncrementalDetokenizer, HoldsBackWhatCouldBecomeAStop) {
  IncrementalDetokenizer text({"END"});
  EXPECT_EQ(text.push({}, "abE").text, "ab");
  EXPECT_EQ(text.push({}, "N").text, "");
  EXPECT_EQ(text.push({}, "E").text, "EN") << "it was none; the new E may be";
  const TextPiece last = text.push({}, "NDxyz");
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.stopped);
}

TEST(IncrementalDetokenizer, TheStopThatEndsFirstWins) {
  EXPECT_EQ(show({"one two three"}, {"three", "two"}).text, "one ");
  EXPECT_EQ(show({"aab"}, {"ab", "aab"}).text, "");
  EXPECT_EQ(show({"xabcd"}, {"abcd", "bc"}).text, "xa") << "as if the tokens came one by one";
}

TEST(IncrementalDetokenizer, BrokenBytesBecomeReplacementCharacters) {
  EXPECT_EQ(show({"a\xff", "b\xC3"}, {}).text, "a\uFFFDb\uFFFD");
  EXPECT_EQ(show({"\xE2", "\x82", "x"}, {}).text, "\uFFFDx");
  EXPECT_EQ(show({"\xF0\x9F", "\x98\x80"}, {}).text, "\U0001F600");
}

TEST(IncrementalDetokenizer, EveryTokenComesOutOnceWithItsText) {
  EXPECT_EQ(show({"a", "", "b", "\xC3", "\xA9"}, {"zz"}).tokens, 5u);
  IncrementalDetokenizer text({"STOP"});
  EXPECT_EQ(text.push({.token = 1}, "ab").tokens.size(), 1u);
  EXPECT_EQ(text.push({.token = 2}, "ST").tokens.size(), 0u);
  const TextPiece last = text.push({.token = 3}, "OP");
  EXPECT_TRUE(last.tokens.empty()) << "tokens of the stop string are not shown";
}

std::vector<int64_t> offsets(const std::vector<std::string>& pieces, const std::vector<std::string>& stops = {}) {
  IncrementalDetokenizer text(stops);
  std::vector<int64_t> offsets;
  const auto take = [&](const TextPiece& piece) {
    for (const ShownToken& token : piece.tokens) offsets.push_back(token.offset);
    return piece.stopped;
  };
  bool stopped = false;
  for (size_t i = 0; i < pieces.size() && !stopped; ++i) stopped = take(text.push({}, pieces[i]));
  if (!stopped) take(text.flush());
  return offsets;
}

TEST(IncrementalDetokenizer, OffsetsCountCharacters) {
  using Offsets = std::vector<int64_t>;
  EXPECT_EQ(offsets({"é", "€", "😀", "x"}), (Offsets{0, 1, 2, 3}));
  EXPECT_EQ(offsets({"aé", "\xF0\x9F", "\x98\x80", "b"}), (Offsets{0, 2, 2, 3}))
      << "the second begins inside a character";
  EXPECT_EQ(offsets({"\xff", "\xff", "a"}), (Offsets{0, 1, 2})) << "each bad byte is shown as one character";
  EXPECT_EQ(offsets({"a", "", "b", ""}), (Offsets{0, 1, 1, 2}));
  EXPECT_EQ(offsets({"é", "ST", "é", "STOP"}, {"STOP"}), (Offsets{0, 1, 3})) << "held back and released";
}

// Against the definition: characters of the shown text that end at or before the token's first byte.
TEST(IncrementalDetokenizer, OffsetsAreThoseOfTheWholeText) {
  std::mt19937 random(11);
  const std::string alphabet[] = {"a", "é", "€", "😀", "\xff", "STO"};
  for (int round = 0; round < 500; ++round) {
    std::string whole;
    for (int i = 0; i < 10; ++i) whole += alphabet[random() % std::size(alphabet)];
    std::vector<size_t> ends;  // of the whole text's characters
    for (std::string_view left = whole; !left.empty();) {
      left.remove_prefix(utf8_sequence(left).bytes);
      ends.push_back(whole.size() - left.size());
    }
    std::vector<std::string> pieces;
    std::vector<int64_t> expected;
    for (size_t at = 0; at < whole.size();) {
      expected.push_back(std::ranges::count_if(ends, [&](size_t end) { return end <= at; }));
      pieces.push_back(whole.substr(at, 1 + random() % 3));
      at += pieces.back().size();
    }
    EXPECT_EQ(offsets(pieces, {"STOP"}), expected) << whole;
  }
}

TEST(IncrementalDetokenizer, StopStringsWaitForMinTokens) {
  IncrementalDetokenizer text({"ab"}, 2);
  EXPECT_EQ(text.push({}, "ab").text, "ab");
  EXPECT_EQ(text.push({}, "xa").text, "xa") << "not even held back";
  const TextPiece third = text.push({}, "bab");
  EXPECT_TRUE(third.stopped);
  EXPECT_EQ(third.text, "b") << "the a before it belongs to the first two tokens";
}

// However the bytes are cut into tokens, the text is that of the whole.
TEST(IncrementalDetokenizer, CuttingIntoTokensChangesNothing) {
  std::mt19937 random(7);
  const std::string alphabet[] = {"a", "b", "ab", "é", "€", "😀", "\xff", "stop", "sto"};
  for (int round = 0; round < 2000; ++round) {
    std::string whole;
    for (int i = 0; i < 12; ++i) whole += alphabet[random() % std::size(alphabet)];
    const std::vector<std::string> stops =
        round % 2 == 0 ? std::vector<std::string>{"stop", "abab", "ba", "bb"} : std::vector<std::string>{};
    size_t end = whole.size();  // of the shown text: the shortest beginning of `whole` that ends with a stop string
    for (size_t length = 1, stop_bytes = 0; length <= whole.size() && stop_bytes == 0; ++length) {
      for (const std::string& stop : stops)
        if (whole.substr(0, length).ends_with(stop)) stop_bytes = std::max(stop_bytes, stop.size());
      if (stop_bytes > 0) end = length - stop_bytes;
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < whole.size();) {
      const size_t length = std::min<size_t>(1 + random() % 3, whole.size() - at);
      pieces.push_back(whole.substr(at, length));
      at += length;
    }
    EXPECT_EQ(show(pieces, stops).text, valid_utf8(whole.substr(0, end))) << whole;
  }
}

}  // namespace
}  // namespace runahead
