#include "services/engine/progress_bar.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

TEST(ProgressBar, MovesWithTheFraction) {
  EXPECT_EQ(bar_text("prefill", 0, "of 90 tokens", 100), "prefill [..............................]   0 % of 90 tokens");
  EXPECT_EQ(bar_text("prefill", 0.5, "of 90 tokens", 100),
            "prefill [###############...............]  50 % of 90 tokens");
  EXPECT_EQ(bar_text("prefill", 1, "of 90 tokens", 100), "prefill [##############################] 100 % of 90 tokens");
}

TEST(ProgressBar, NeverWrapsNorCutsACharacter) {
  EXPECT_EQ(bar_text("prefill", 0.5, "of 90 tokens", 10), "prefill [#");
  EXPECT_EQ(bar_text("\xC3\xA9\xC3\xA9", 0, "", 3), "\xC3\xA9");
  EXPECT_EQ(bar_text("prefill", 0, "", -1), "");
}

TEST(ProgressBar, IsNarrowWhereTheWordsNeedTheRoom) {
  const std::string detail = "0.45 GB/s, 12 s left";
  EXPECT_EQ(bar_text("loading SmolLM2-135M-Instruct.Q4_1.gguf", 0.31, detail, 79),
            "loading SmolLM2-135M-Instruct.Q4_1.gguf [###.......]  31 % 0.45 GB/s, 12 s left");
}

TEST(ProgressBar, GuessesHowLongItTakesFromWhatIsDone) {
  EXPECT_EQ(time_left_text(0.25, 10), ", 30 s left");
  EXPECT_EQ(time_left_text(0.5, 0.6), ", 1 s left");
  EXPECT_EQ(time_left_text(0.1, 60), ", 9 min left");
  EXPECT_EQ(time_left_text(0.02, 4), ", 4 min left");
  EXPECT_EQ(time_left_text(0.5, 0.4), "") << "too soon";
  EXPECT_EQ(time_left_text(0.01, 10), "") << "too little";
  EXPECT_EQ(time_left_text(1, 10), "");
}

}  // namespace
}  // namespace runahead
