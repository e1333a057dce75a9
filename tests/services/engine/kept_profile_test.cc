#include "services/engine/kept_profile.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

const EngineProfiles kProfiles = {{"model-a/int8/kv1 avx2 1", {1e-4, 2e-9}}, {"model-b/fp32/kv1 generic 2", {3e-3, 0}}};

TEST(KeptProfile, ComesBackAsItWasWritten) {
  const auto read = parse_engine_profiles(encode_engine_profiles(kProfiles, "this build, this processor"),
                                          "this build, this processor");
  ASSERT_TRUE(read.has_value()) << read.error().message;
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ(read->at("model-a/int8/kv1 avx2 1").seconds_per_token, 1e-4);
  EXPECT_EQ(read->at("model-a/int8/kv1 avx2 1").seconds_per_pair, 2e-9);
}

TEST(KeptProfile, OfAnotherMachineOrDamagedIsMeasuredAnew) {
  const std::string text = encode_engine_profiles(kProfiles, "this");
  EXPECT_FALSE(parse_engine_profiles(text, "another"));
  EXPECT_FALSE(parse_engine_profiles(text.substr(0, text.size() / 2), "this"));
  EXPECT_FALSE(parse_engine_profiles("", "this"));
  for (const char* speed : {"-1", "0", "\"fast\"", "null", "1e999"}) {
    const std::string entry = R"({"machine": "this", "profiles": {"x": {"seconds_per_pair": 1, "seconds_per_token": )";
    EXPECT_FALSE(parse_engine_profiles(entry + speed + "}}}", "this")) << speed;
  }
}

}  // namespace
}  // namespace runahead
