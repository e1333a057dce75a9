#include "model/chat_template/characters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "model/chat_template/text.h"

namespace runahead::jinja {
namespace {

using nlohmann::json;

// tests/golden/make_python_text.py: every character that Python's Unicode knows.
const json& golden_characters() {
  static const json kFixture =
      json::parse(std::ifstream(std::filesystem::path(RUNAHEAD_SOURCE_DIR) / "tests/golden/python_text.json"));
  return kFixture;
}

std::set<char32_t> characters(const json& ranges) {
  std::set<char32_t> all;
  for (const json& range : ranges)
    for (auto c = range[0].get<uint32_t>(); c <= range[1].get<uint32_t>(); ++c) all.insert(c);
  return all;
}

const std::set<char32_t>& assigned() {
  static const std::set<char32_t> kAssigned = characters(golden_characters()["assigned"]);
  return kAssigned;
}

std::string text_of(char32_t c) {
  std::string text;
  append_char(text, c);
  return text;
}

// Small letters since Unicode 15; Python 3.11 has 14.
const std::set<char32_t> kSmallSinceUnicode15 = {0x10FC, 0xA7F2, 0xA7F3, 0xA7F4, 0xAB69};

template <class Accepts>
std::set<char32_t> differing(const char* kind, const Accepts& accepts) {
  const std::set<char32_t> expected = characters(golden_characters()["kinds"][kind]);
  std::set<char32_t> differ;
  for (const char32_t c : assigned())
    if (accepts(c) != expected.contains(c)) differ.insert(c);
  return differ;
}

using Characters = std::set<char32_t>;

TEST(Characters, AreOfTheKindsThatPythonSays) {
  ASSERT_GT(assigned().size(), 280000u);
  EXPECT_EQ(differing("space", is_space), Characters{});
  EXPECT_EQ(differing("alpha", is_alpha), Characters{});
  EXPECT_EQ(differing("decimal", is_decimal), Characters{});
  EXPECT_EQ(differing("digit", is_digit), Characters{});
  EXPECT_EQ(differing("alnum", is_alnum), Characters{});
  EXPECT_EQ(differing("printable", is_printable), Characters{});
  EXPECT_EQ(differing("upper", [](char32_t c) { return is_upper(text_of(c)); }), Characters{});
  EXPECT_EQ(differing("lower", [](char32_t c) { return is_lower(text_of(c)); }), kSmallSinceUnicode15);
}

TEST(Characters, AllNumbersButIdeographsAreNumeric) {
  for (const char32_t c : differing("numeric", is_numeric))
    EXPECT_TRUE(is_alpha(c) && c >= 0x3400) << std::hex << uint32_t{c};
}

TEST(Characters, ChangeCaseAsInPython) {
  const std::pair<const char*, std::string (*)(std::string_view)> kMaps[] = {
      {"to_upper", to_upper}, {"to_lower", to_lower}, {"casefold", casefold}, {"title", title}, {"title", capitalize}};
  for (const auto& [name, change] : kMaps) {
    std::map<char32_t, std::string> changed;
    const std::string all = golden_characters()["maps"][name].get<std::string>() + " ";
    for (size_t pos = 0; pos < all.size();) {
      const char32_t c = next_char(all, pos);
      const size_t end = all.find(' ', pos);
      changed[c] = all.substr(pos, end - pos);
      pos = end + 1;
    }
    ASSERT_GT(changed.size(), 1300u) << name;
    for (const char32_t c : assigned()) {
      const auto found = changed.find(c);
      ASSERT_EQ(change(text_of(c)), found == changed.end() ? text_of(c) : found->second)
          << name << " " << std::hex << uint32_t{c};
    }
  }
}

TEST(Characters, EndAWordWithItsOwnSigma) {
  const auto is_final = [](const std::string& before, const std::string& behind) {
    return to_lower(before + "Σ" + behind).substr(to_lower(before).size(), 2) == "ς";
  };
  EXPECT_EQ(differing("sigma_behind", [&](char32_t c) { return is_final("A" + text_of(c), ""); }), Characters{});
  EXPECT_EQ(differing("sigma_before", [&](char32_t c) { return is_final("A", text_of(c) + "a"); }), Characters{});
}

TEST(Characters, AreLeftAloneWhereTheyHaveNoCase) {
  EXPECT_EQ(title("σΣ 1a ßß x'y"), "Σς 1A Ssß X'Y");
  EXPECT_EQ(capitalize("ΑΣ"), "Ας");
  EXPECT_FALSE(is_upper("1 2"));
  EXPECT_TRUE(is_upper("A 1"));
  EXPECT_FALSE(is_lower("aǅ"));
  EXPECT_EQ(to_upper(""), "");
}

}  // namespace
}  // namespace runahead::jinja
