#include "base/sha256.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

TEST(Sha256, GivesTheDigestsOfTheStandardsExamples) {  // FIPS 180-4, NIST's example values
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Hex, TwoDigitsAByte) { EXPECT_EQ(hex(std::string_view("\x00\xff\x1a", 3)), "00ff1a"); }

}  // namespace
}  // namespace runahead
