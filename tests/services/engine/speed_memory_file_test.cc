#include "services/engine/speed_memory_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

SpeedMemory two_workers() {
  return {{"m | cpu | a", {.speed = {1e-3, 2e-9, 0.01, 1e-6}, .link_bytes_per_second = 5e7}},
          {"m | cpu | b", {.speed = {2e-3, 0, 0, 0}, .link_bytes_per_second = {}}}};
}

TEST(SpeedMemoryFile, ComesBackAsItWas) {
  const auto back = parse_speed_memory(encode_speed_memory(two_workers()));
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_EQ(back->size(), 2u);
  const LearntSpeeds& first = back->at("m | cpu | a");
  EXPECT_EQ(first.speed.seconds_per_token, 1e-3);
  EXPECT_EQ(first.speed.seconds_per_pair, 2e-9);
  EXPECT_EQ(first.speed.seconds_per_chunk, 0.01);
  EXPECT_EQ(first.speed.seconds_per_prefix_token, 1e-6);
  EXPECT_EQ(first.link_bytes_per_second, 5e7);
  EXPECT_FALSE(back->at("m | cpu | b").link_bytes_per_second);
}

TEST(SpeedMemoryFile, SeveralAddToOneFileAndADamagedOneIsMadeAnew) {
  const test::TempDir dir;
  const auto path = dir / "cache" / "worker-speeds.json";
  EXPECT_TRUE(read_speed_memory(path).empty());
  add_to_speed_memory(path, two_workers());
  add_to_speed_memory(path, {{"m | cpu | c", {.speed = {3e-3, 0, 0, 0}, .link_bytes_per_second = {}}}});
  EXPECT_EQ(read_speed_memory(path).size(), 3u);
  std::ofstream(path) << R"({"workers": {"x": {"seconds_per_token": -1}}})";
  EXPECT_TRUE(read_speed_memory(path).empty());
  add_to_speed_memory(path, two_workers());
  EXPECT_EQ(read_speed_memory(path).size(), 2u);
}

TEST(SpeedMemoryFile, RefusesSpeedsThatNoWorkerHas) {
  const auto with = [](const std::string& fields) {
    return parse_speed_memory(R"({"workers": {"x": {"seconds_per_token": 1e-3, "seconds_per_pair": 0, )"
                              R"("seconds_per_chunk": 0)" +
                              fields + "}}}");
  };
  EXPECT_TRUE(with(R"(, "seconds_per_prefix_token": 0)"));
  for (const char* fields : {"", R"(, "seconds_per_prefix_token": -1)", R"(, "seconds_per_prefix_token": "1")",
                             R"(, "seconds_per_prefix_token": 0, "link_bytes_per_second": 0)",
                             R"(, "seconds_per_prefix_token": 0, "link_bytes_per_second": "1e9")"})
    EXPECT_FALSE(with(fields)) << fields;
  for (const char* text : {"", "[]", "{}", R"({"workers": []})", R"({"workers": {"x": 1}})"})
    EXPECT_FALSE(parse_speed_memory(text)) << text;
}

}  // namespace
}  // namespace runahead
