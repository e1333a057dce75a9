#include "services/engine/split_table_file.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using testing::HasSubstr;

SplitSearchFile some_file() {
  return {.table = {.identity = "abc/int8/kv1", .entries = {{1024, {0.625, 0.375}, 0.5}, {2048, {0.6, 0.4}, 1.25}}},
          .measured = {{{1024, {512}}, 0.6}, {{1024, {640}}, 0.5}, {{2048, {}}, 2.0}}};
}

TEST(SplitTableFile, ComesBackAsItWas) {
  const SplitSearchFile file = some_file();
  const auto back = parse_split_search(encode_split_search(file));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->table.identity, file.table.identity);
  ASSERT_EQ(back->table.entries.size(), 2u);
  EXPECT_EQ(back->table.entries[1].shares, file.table.entries[1].shares);
  EXPECT_EQ(back->table.entries[1].ttft_seconds, 1.25);
  EXPECT_EQ(back->measured, file.measured);
}

TEST(SplitTableFile, IsReadFromItsPlace) {
  const test::TempDir dir;
  const auto path = dir / "a folder that is not there yet" / "table.json";
  EXPECT_EQ(read_split_search(path).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_split_search(path, some_file()));
  EXPECT_TRUE(read_split_table(path));
  SplitSearchFile begun = some_file();
  begun.table.entries.clear();
  ASSERT_TRUE(write_split_search(path, begun));
  EXPECT_TRUE(read_split_search(path)) << "a search that goes on";
  EXPECT_THAT(read_split_table(path).error().message, HasSubstr("no entry")) << "nothing to serve by";
}

TEST(SplitTableFile, RefusesWhatIsNoTable) {
  for (const char* text :
       {"", "[]", "{}", R"({"identity":1})", R"({"identity":"m","entries":{}})", R"({"identity":"m","entries":[1]})",
        R"({"identity":"m","entries":[{"tokens":1024,"shares":[0.5,"x"],"ttft_seconds":1}]})",
        R"({"identity":"m","entries":[{"tokens":-1,"shares":[1],"ttft_seconds":1}]})",
        R"({"identity":"m","entries":[{"tokens":1e30,"shares":[1],"ttft_seconds":1}]})",
        R"({"identity":"m","entries":[{"tokens":1024,"shares":[1],"ttft_seconds":0}]})",
        R"({"identity":"m","entries":[{"tokens":1024,"shares":[0.5,0.6],"ttft_seconds":1}]})",
        R"({"identity":"m","measured":[{"tokens":1024,"cuts":[0],"ttft_seconds":1}]})",
        R"({"identity":"m","measured":[{"tokens":1024,"cuts":"64","ttft_seconds":1}]})"})
    EXPECT_EQ(parse_split_search(text).error().code, ErrorCode::kInvalidArgument) << text;
}

}  // namespace
}  // namespace runahead
