// JSON in the order of its text: what nlohmann's own ordered parse makes of it, in linear time.
#include "base/parsed_json.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/rng.h"

namespace runahead {
namespace {

using nlohmann::ordered_json;

// Keys of an object are unlike, as parse_json sees to.
ordered_json random_value(SeededRng& rng, int depth) {
  switch (rng.next() % (depth > 0 ? 8 : 6)) {
    case 0:
      return nullptr;
    case 1:
      return rng.next() % 2 == 0;
    case 2:
      return -static_cast<int64_t>(rng.next() >> 1);
    case 3:
      return rng.next();
    case 4:
      return static_cast<double>(rng.next()) * 1e-9;
    case 5:
      return std::string(rng.next() % 20, 'x') + "\"\\\n\u00e9";
    case 6: {
      ordered_json list = ordered_json::array();
      for (uint64_t i = rng.next() % 6; i > 0; --i) list.push_back(random_value(rng, depth - 1));
      return list;
    }
    default: {
      ordered_json object = ordered_json::object();
      for (uint64_t i = rng.next() % 6; i > 0; --i)
        object["k" + std::to_string(rng.next() % 1000)] = random_value(rng, depth - 1);
      return object;
    }
  }
}

TEST(ParsedJson, InOrderIsWhatTheLibrarysOwnOrderedParseGives) {
  SeededRng rng(7);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_value(rng, 5).dump(i % 3 == 0 ? 2 : -1);
    const ordered_json ours = parse_in_order(text), theirs = ordered_json::parse(text);
    EXPECT_EQ(ours, theirs);
    EXPECT_EQ(ours.dump(), theirs.dump()) << "the same order";
  }
}

TEST(ParsedJson, AnObjectOfManyKeysTakesLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 400'000; ++i) text += "\"p" + std::to_string(i) + "\":{\"type\":\"string\"},";
  text.back() = '}';
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_in_order(text).size(), 400'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << "quadratic: minutes";
}

}  // namespace
}  // namespace runahead
