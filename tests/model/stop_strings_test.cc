#include "model/stop_strings.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"

namespace runahead {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    const auto result = matcher.push(piece);
    outcome.text += result.emit;
    outcome.stopped = result.stopped;
  }
  outcome.text += matcher.flush();
  return outcome;
}

// By definition: the stop string that ends first, the longest of those that end together.
Outcome naive(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const auto& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopStrings, CutExactlyAtTheStop) {
  EXPECT_EQ(run({"END"}, {"hello EN", "D world"}), (Outcome{"hello ", true}));
  EXPECT_EQ(run({"END"}, {"hello EN", "ough"}), (Outcome{"hello ENough", false}));
  EXPECT_EQ(run({"END"}, {"hello E", "EN", "D"}), (Outcome{"hello E", true}));
  EXPECT_EQ(run({"\n\n", "<|x|>"}, {"a\n", "b\n", "\nc"}), (Outcome{"a\nb", true}));
  EXPECT_EQ(run({}, {"a", "b"}), (Outcome{"ab", false}));
  EXPECT_EQ(run({"世界"}, {"你好世", "界!"}), (Outcome{"你好", true}));
}

TEST(StopStrings, HoldBackOnlyWhatMayBecomeAStop) {
  StopStrings matcher({"abc"});
  EXPECT_EQ(matcher.push("xab").emit, "x");
  EXPECT_EQ(matcher.push("d").emit, "abd");
  EXPECT_EQ(matcher.push("ab").emit, "");
  EXPECT_EQ(matcher.flush(), "ab");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopStrings, NothingFollowsAStop) {
  StopStrings matcher({"."});
  EXPECT_TRUE(matcher.push("a.b").stopped);
  const auto later = matcher.push("c");
  EXPECT_TRUE(later.stopped);
  EXPECT_EQ(later.emit + matcher.flush(), "");
}

TEST(StopStrings, TheOutcomeDoesNotDependOnHowTheTextIsCut) {
  SeededRng rng(11);
  const std::vector<std::string> letters = {"a", "b", "é", "世"};
  const auto word = [&](size_t length) {
    std::vector<std::string> chars;
    for (size_t i = 0; i < length; ++i) chars.push_back(letters[rng.next() % letters.size()]);
    return chars;
  };
  const auto joined = [](const std::vector<std::string>& chars) {
    std::string text;
    for (const auto& c : chars) text += c;
    return text;
  };
  int stopped = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + rng.next() % 3; ++i) stops.push_back(joined(word(1 + rng.next() % 5)));
    const std::vector<std::string> text = word(rng.next() % 30);
    std::vector<std::string> pieces = {""};
    for (const auto& c : text) {
      if (rng.next() % 3 == 0) pieces.emplace_back();
      pieces.back() += c;
    }
    const Outcome expected = naive(stops, joined(text));
    ASSERT_EQ(run(stops, pieces), expected) << joined(text);
    stopped += expected.stopped;
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

TEST(StopStrings, ValidationNamesTheParameter) {
  EXPECT_TRUE(validate_stop_strings({"a", "世"}));
  for (const std::vector<std::string>& bad :
       {std::vector<std::string>{"a", "b", "c", "d", "e"}, {""}, {std::string(5000, 'x')}, {"\xff"}}) {
    const auto result = validate_stop_strings(bad);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().param, "stop");
  }
}

}  // namespace
}  // namespace runahead
