#include "actors/coordinator/token_stream.h"

#include <thread>

#include "actors/coordinator/ttft_stages.h"
#include "base/limits.h"
#include "tests/support/loop.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

TokensEvent tokens_of(int32_t first_index, int32_t count) {
  TokensEvent event{.first_index = first_index};
  for (int32_t i = 0; i < count; ++i) event.tokens.push_back({.token = first_index + i});
  return event;
}

struct Queue : Loop {
  std::shared_ptr<TokenQueue> queue = std::make_shared<TokenQueue>(io.get_executor(), clock);
  Result<StreamEvent> next(Duration wait = 1s) { return run(TokenQueue::next(queue, clock.after(wait))); }
};

TEST(TokenQueue, UnreadTokensAreMergedAndUnreadProgressIsReplaced) {
  Queue q;
  EXPECT_TRUE(q.queue->push(PrefillProgress{.fraction = 0.1}));
  EXPECT_TRUE(q.queue->push(PrefillProgress{.fraction = 0.5}));
  EXPECT_EQ(std::get<PrefillProgress>(*q.next()).fraction, 0.5);
  EXPECT_TRUE(q.queue->push(tokens_of(0, 1)));
  EXPECT_TRUE(q.queue->push(tokens_of(1, 2)));
  EXPECT_EQ(std::get<TokensEvent>(*q.next()).tokens.size(), 3u);
  EXPECT_TRUE(q.queue->push(tokens_of(3, 1)));
  EXPECT_EQ(std::get<TokensEvent>(*q.next()).first_index, 3);
  EXPECT_EQ(q.next(1ms).error().code, ErrorCode::kDeadlineExceeded);
}

TEST(TokenQueue, ThePromptIsReadBeforeItsAnswer) {
  Queue q;
  EXPECT_TRUE(q.queue->push(PrefillProgress{.fraction = 0.5}));
  EXPECT_TRUE(q.queue->push(PromptEvent{{{.token = 8}, {.token = 9}}}));
  EXPECT_TRUE(q.queue->push(tokens_of(0, 1)));
  EXPECT_EQ(std::get<PromptEvent>(*q.next()).tokens.size(), 2u);
  EXPECT_EQ(std::get<TokensEvent>(*q.next()).tokens.size(), 1u);
}

TEST(TokenQueue, WhatWasPushedIsReadBeforeTheEnd) {
  Queue q;
  EXPECT_TRUE(q.queue->push(tokens_of(0, 1)));
  q.queue->close({ErrorCode::kWorkerLost, "gone"});
  EXPECT_TRUE(q.queue->ended());
  EXPECT_TRUE(std::holds_alternative<TokensEvent>(*q.next()));
  EXPECT_EQ(q.next().error().code, ErrorCode::kWorkerLost);
  EXPECT_EQ(q.next().error().code, ErrorCode::kWorkerLost) << "and again, without waiting";
}

// tests/chaos found a job that had ended well and was told as failed: the coordinator had been stopped, and found a deadline and
// the event behind it in one turn of its loop.
TEST(TokenQueue, WhatComesInTheTurnOfTheDeadlineIsRead) {
  Queue q;
  std::optional<Result<StreamEvent>> read;
  asio::co_spawn(q.io, TokenQueue::next(q.queue, q.clock.after(1ms)),
                 [&](std::exception_ptr, Result<StreamEvent> event) { read = std::move(event); });
  q.io.poll();  // it waits
  std::this_thread::sleep_for(10ms);
  // The timer has passed and is ready to run; before it, what the control plane has brought.
  while (!read && q.io.run_one() > 0) EXPECT_TRUE(q.queue->push(FinishedEvent{.reason = FinishReason::kLength}));
  ASSERT_TRUE(read);
  ASSERT_TRUE(read->has_value()) << read->error().message;
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(**read));
}

TEST(TokenQueue, AWaitForNothingIsToldApartFromTheRequestsDeadline) {
  Queue q;
  EXPECT_EQ(q.next(1ms).error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_FALSE(q.queue->ended());
  q.queue->close({ErrorCode::kDeadlineExceeded, "the request's"});
  EXPECT_EQ(q.next(1ms).error().message, "the request's");
  EXPECT_TRUE(q.queue->ended());
}

TEST(TokenQueue, UnreadTokensAreBounded) {
  Queue q;
  EXPECT_TRUE(q.queue->push(tokens_of(0, static_cast<int32_t>(limits::kUnreadTokensMax))));
  EXPECT_FALSE(q.queue->push(tokens_of(static_cast<int32_t>(limits::kUnreadTokensMax), 1)));
}

TEST(TtftStages, EveryPartHasItsPlaceAndTheSumIsTheWhole) {
  proto::RankTiming rank;
  rank.set_total_seconds(0.100);
  rank.set_compute_seconds(0.060);
  rank.set_kv_wait_seconds(0.025);
  rank.set_lane_wait_seconds(0.008);
  rank.set_sample_seconds(0.005);
  TtftReport report;
  fill_stages({.received = 10ms,
               .tokenize = 4ms,
               .submitted = 15ms,
               .plan_started = 35ms,
               .dispatched = 37ms,
               .first_token = 150ms,
               .written = 152ms},
              rank, report);
  EXPECT_NEAR(report.stages[TtftStage::kTokenize], 0.004, 1e-12);
  EXPECT_NEAR(report.stages[TtftStage::kQueue], 0.020 + 0.008, 1e-12)
      << "waiting for the lane is waiting for other requests";
  EXPECT_NEAR(report.stages[TtftStage::kPlan], 0.002, 1e-12);
  EXPECT_NEAR(report.stages[TtftStage::kDispatch], 0.113 - 0.100, 1e-12);
  EXPECT_NEAR(report.stages[TtftStage::kRespond], 0.001 + 0.002, 1e-12);
  EXPECT_NEAR(report.stages[TtftStage::kOther], 0.002, 1e-12);
  EXPECT_NEAR(report.ttft_seconds, 0.142, 1e-12);
  EXPECT_NEAR(report.stages.sum(), report.ttft_seconds, 1e-12);
}

TEST(TtftStages, ARankThatStartsBeforeTheLastMessageIsOutCountsNothingTwice) {
  proto::RankTiming rank;
  rank.set_total_seconds(0.0995);
  rank.set_compute_seconds(0.0995);
  TtftReport report;
  fill_stages({.dispatched = 2ms, .first_token = 100ms, .written = 100ms}, rank, report);
  EXPECT_GE(report.stages[TtftStage::kDispatch], 0);
  EXPECT_NEAR(report.stages[TtftStage::kPlan], 0.0005, 1e-12);
  EXPECT_NEAR(report.stages.sum(), report.ttft_seconds, 1e-12);
}

}  // namespace
}  // namespace runahead::test
