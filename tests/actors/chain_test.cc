// The whole way of a request through real actors in one process.
#include "cluster.h"

namespace runahead::test {
namespace {

TEST(Chain, OneWorkerAnswersWithTheModelsOwnTokens) {
  Cluster cluster(1);
  const InferenceRequest request = request_of(200, 12);
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  ASSERT_TRUE(answer->finished);
  EXPECT_EQ(answer->finished->reason, FinishReason::kLength);
  EXPECT_EQ(answer->finished->generated, 12);
}

}  // namespace
}  // namespace runahead::test
