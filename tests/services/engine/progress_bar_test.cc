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

}  // namespace
}  // namespace runahead
