// That encoding takes no more than linear time, on any machine and under any sanitizer: a text is held against its first eighth.
#pragma once

#include <gtest/gtest.h>

#include <ctime>
#include <string>

#include "model/tokenizer/tokenizer.h"

namespace runahead::test {

// Processor time: other tests may share the machine.
inline double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const std::clock_t begin = std::clock();
  const auto ids = tokenizer.encode(text, true);
  EXPECT_TRUE(ids) << (ids ? "" : ids.error().message);
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

// Linear work takes 8 times as long, quadratic 64 times; 4 times linear leaves room for caches, the constant for the clock.
inline void expect_linear_time(const Tokenizer& tokenizer, const std::string& text) {
  const double part = seconds_to_encode(tokenizer, text.substr(0, text.size() / 8));
  const double whole = seconds_to_encode(tokenizer, text);
  EXPECT_LT(whole, 32 * part + 0.05) << "of '" << text[0] << "', an eighth: " << part << " s";
  testing::Test::RecordProperty("seconds_" + std::to_string(static_cast<int>(text[0])), std::to_string(whole));
}

}  // namespace runahead::test
