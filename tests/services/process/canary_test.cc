// The completion that readiness depends on: not ready before it, nor after one that failed, and asked for anew when workers
// come back.
#include "services/process/canary.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

class CanaryTest : public ::testing::Test {
 protected:
  CanaryTest() { asio::co_spawn(io_, canary_.run(), asio::detached); }
  ~CanaryTest() override {
    canary_.stop();
    io_.run_for(5s);
  }
  bool becomes_ready(bool ready, std::chrono::milliseconds bound = 5s) {
    const auto end = std::chrono::steady_clock::now() + bound;
    while (canary_.reasons_not_ready().empty() != ready && std::chrono::steady_clock::now() < end) io_.run_for(5ms);
    return canary_.reasons_not_ready().empty() == ready;
  }

  asio::io_context io_{1};
  AsioClock clock_;
  FakeInference inference_{io_};
  std::vector<bool> results_;
  Canary canary_{io_.get_executor(), clock_, inference_, 200ms,
                 [this](bool passed, double) { results_.push_back(passed); }};
};

TEST_F(CanaryTest, IsReadyOnlyBehindACompletionThroughEveryWorker) {
  EXPECT_FALSE(canary_.reasons_not_ready().empty()) << "nothing has been tried yet";
  EXPECT_TRUE(becomes_ready(true));
  ASSERT_EQ(inference_.requests().size(), 1u);
  const InferenceRequest request = inference_.requests().front();
  EXPECT_EQ(request.prompt.size(), 64u) << "a page for the one prefill worker";
  EXPECT_EQ(request.max_new_tokens, 1);
  EXPECT_EQ(request.strategy, Strategy::kEven);
  io_.run_for(600ms);
  EXPECT_EQ(results_, std::vector{true}) << "nobody has come or gone: it is not asked again";
}

TEST_F(CanaryTest, OneThatFailsSaysWhyAndIsTriedAgain) {
  inference_.set({.refuse = Error{ErrorCode::kInternal, "numbers overflow", ""}});
  io_.run_for(50ms);
  ASSERT_EQ(canary_.reasons_not_ready().size(), 1u);
  EXPECT_NE(canary_.reasons_not_ready()[0].find("numbers overflow"), std::string::npos);
  inference_.set({});
  EXPECT_TRUE(becomes_ready(true));
  EXPECT_EQ(results_, (std::vector{false, true}));
}

TEST_F(CanaryTest, OneThatTakesTooLongHasFailed) {
  inference_.set({.before_first = 300ms});
  EXPECT_FALSE(becomes_ready(true, 800ms));
  EXPECT_NE(canary_.reasons_not_ready()[0].find("no end within"), std::string::npos) << canary_.reasons_not_ready()[0];
  EXPECT_FALSE(results_.empty());
}

TEST_F(CanaryTest, WorkersThatComeBackProveThemselvesAnew) {
  EXPECT_TRUE(becomes_ready(true));
  inference_.set({.ready = false});
  EXPECT_TRUE(becomes_ready(false));
  inference_.set({});
  EXPECT_TRUE(becomes_ready(true));
  EXPECT_EQ(results_, (std::vector{true, true}));
}

TEST_F(CanaryTest, AFullQueueIsNoFailure) {
  EXPECT_TRUE(becomes_ready(true));
  inference_.set({.refuse = Error{ErrorCode::kOverloaded, "full", ""}, .ready = false});
  EXPECT_TRUE(becomes_ready(false));
  inference_.set({.refuse = Error{ErrorCode::kOverloaded, "full", ""}});
  io_.run_for(400ms);
  EXPECT_EQ(results_, std::vector{true});
}

}  // namespace
}  // namespace runahead
