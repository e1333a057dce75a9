// A beating heart is not work; an own absence is nobody's fault; progress is what attempts are counted by.
#include "tests/actors/coordinator/core_driver.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;
using Tokens = std::vector<TokenId>;

// Peers 1 and 2 prefill, 9 and 10 decode.
struct Four : CoreDriver {
  Four() {
    for (const PeerId peer : {PeerId{1}, PeerId{2}}) join(peer, true);
    for (const PeerId peer : {PeerId{9}, PeerId{10}}) join(peer, false);
  }
  RequestId start(int32_t prompt_len = 100, int32_t max_new_tokens = 3) {
    return *submit(prompt_len, max_new_tokens, 600s);
  }
  // Who has the last message of this kind.
  PeerId holder(Kind kind, RequestId id, uint32_t attempt) const {
    for (const auto& [peer, messages] : inbox)
      for (const proto::Envelope& message : messages)
        if (message.body_case() == kind && message.request() == id && message.attempt() == attempt) return peer;
    return 0;
  }
  // Time passes; hearts beat, and those of `working` count work. Nobody's attempts are over.
  void beat(Duration time, std::vector<PeerId> alive, std::vector<PeerId> working = {}, uint32_t running = 1) {
    for (Duration done{0}; done < time; done += 250ms) {
      for (const PeerId peer : alive) {
        proto::Envelope message = envelope({.epoch = kEpoch});
        if (std::ranges::count(working, peer) > 0) ++work[peer];
        message.mutable_heartbeat()->set_work_done(work[peer]);
        message.mutable_heartbeat()->set_running(running);
        core.on_message(peer, message, now);
      }
      tick(250ms);
    }
  }
  std::string state(PeerId peer) const {
    for (const WorkerView& worker : core.view(now).workers)
      if (worker.name == "w" + std::to_string(peer)) return worker.state;
    return "gone";
  }
  std::map<PeerId, uint64_t> work;
};
const std::vector<PeerId> kAll = {1, 2, 9, 10};

TEST(Stall, AWorkerWhoseHeartBeatsButWhoseLaneIsStuckLosesTheAttemptAndIsAvoided) {
  Four driver;
  const RequestId id = driver.start();
  const PeerId stuck = driver.holder(Kind::kRunChainStep, id, 1), other = 3 - stuck;
  driver.beat(29s, kAll);
  EXPECT_TRUE(driver.sink.failures.empty());
  driver.beat(2s, kAll);
  EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kDeadlineExceeded});
  EXPECT_EQ(driver.holder(Kind::kRunChainStep, id, 2), other);
  EXPECT_EQ(driver.state(stuck), "stuck");
  const RequestId next = driver.start();
  EXPECT_EQ(driver.holder(Kind::kRunChainStep, next, 1), other) << "not while it is stuck";
  driver.beat(500ms, kAll, {stuck});
  EXPECT_EQ(driver.state(stuck), "ready") << "it works again";
}

// tests/chaos made a hole of a link: the worker that waited behind it was blamed, gave everything back, and got nothing any more.
TEST(Stall, AStuckWorkerThatHasGivenEverythingBackIsReady) {
  Four driver;
  const RequestId id = driver.start();
  const PeerId stuck = driver.holder(Kind::kRunChainStep, id, 1);
  driver.beat(31s, kAll);
  EXPECT_EQ(driver.state(stuck), "stuck");
  driver.from(stuck, CoreDriver::ended(id, 1));
  EXPECT_EQ(driver.state(stuck), "ready");
}

// tests/chaos lost a RankDone within a connection: the worker's pages counted as held for ever.
TEST(Stall, AWorkerThatHasNothingInWorkAndStillHoldsSomethingComesBackAsANewOne) {
  Four driver;
  const RequestId id = driver.start(100, 1);
  const PeerId rank = driver.holder(Kind::kRunChainStep, id, 1);
  driver.from(rank, CoreDriver::first_token(id, 1, 5));
  driver.beat(1500ms, kAll, {}, 0);
  driver.beat(250ms, kAll);
  driver.beat(1900ms, kAll, {}, 0);
  EXPECT_EQ(driver.state(rank), "ready") << "its order may be on its way";
  driver.beat(500ms, kAll, {}, 0);
  EXPECT_EQ(driver.state(rank), "gone");
}

TEST(Stall, AStuckDecodeWorkerIsFoundToo) {
  Four driver;
  const RequestId id = driver.start(100, 50);
  const PeerId rank = driver.holder(Kind::kRunChainStep, id, 1), stuck = driver.holder(Kind::kRunDecode, id, 1);
  driver.from(rank, CoreDriver::first_token(id, 1, 5));
  driver.from(rank, CoreDriver::rank_done(id, 1, 0));
  driver.beat(10s, kAll);
  driver.from(stuck, CoreDriver::tokens(id, 1, 1, {6}));
  driver.beat(29s, kAll);
  EXPECT_TRUE(driver.sink.failures.empty()) << "a token is progress";
  driver.beat(2s, kAll);
  EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kDeadlineExceeded});
  EXPECT_EQ(driver.holder(Kind::kRunDecode, id, 2), 19 - stuck);
  EXPECT_EQ(driver.state(stuck), "stuck");
}

TEST(Stall, AWorkerThatWorksOnOthersIsGivenTimeButNotForEver) {
  Four driver;
  const RequestId id = driver.start();
  const PeerId busy = driver.holder(Kind::kRunChainStep, id, 1);
  driver.beat(55s, kAll, kAll);
  EXPECT_TRUE(driver.sink.failures.empty()) << "another's work goes first";
  driver.beat(10s, kAll, kAll);
  EXPECT_EQ(driver.sink.failures.size(), 1u);
  EXPECT_EQ(driver.state(busy), "ready");
}

TEST(Stall, ReportsThatNeverComeDoNotHoldAnAnswer) {
  Four driver;
  const RequestId id = driver.start(100, 1);
  driver.from(driver.holder(Kind::kRunChainStep, id, 1), CoreDriver::first_token(id, 1, 5));
  driver.beat(31s, kAll);
  EXPECT_TRUE(driver.finished.contains(id));
}

TEST(Room, ARoleThatStaysEmptyEndsWaitsAfterThirtySeconds) {
  Four driver;
  const RequestId running = driver.start(100, 50);
  const PeerId rank = driver.holder(Kind::kRunChainStep, running, 1);
  driver.from(rank, CoreDriver::first_token(running, 1, 5));
  driver.from(rank, CoreDriver::rank_done(running, 1, 0));
  const RequestId queued = driver.start(4000, 50);
  for (const PeerId peer : {PeerId{9}, PeerId{10}}) driver.core.on_disconnected(peer, driver.now);
  driver.settle();
  driver.beat(29s, {1, 2}, {1, 2});
  EXPECT_TRUE(driver.errors.empty());
  driver.beat(2s, {1, 2}, {1, 2});
  for (const RequestId id : {running, queued}) {
    ASSERT_TRUE(driver.errors.contains(id));
    EXPECT_EQ(driver.errors.at(id).code, ErrorCode::kUnavailable);
    EXPECT_NE(driver.errors.at(id).message.find("decode"), std::string::npos);
  }
}

TEST(Room, AWorkerThatComesBackInTimeTakesTheRequest) {
  Four driver;
  const RequestId id = driver.start();
  for (const PeerId peer : {PeerId{9}, PeerId{10}}) driver.core.on_disconnected(peer, driver.now);
  driver.settle();
  driver.beat(25s, {1, 2}, {1, 2});
  driver.join(11, false);
  driver.beat(25s, {1, 2, 11}, {1, 2, 11});
  EXPECT_TRUE(driver.errors.empty());
  EXPECT_NE(driver.last(11, Kind::kRunDecode), nullptr);
  EXPECT_EQ(driver.last(11, Kind::kRunDecode)->request(), id);
}

TEST(Room, ARequestThatOnlyALostWorkerHadMemoryForEndsLikewise) {
  CoreDriver driver;
  driver.join(1, true);
  driver.join(2, true, 16);
  driver.join(9, false);
  const RequestId id = *driver.submit(2000, 3, 600s);
  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  driver.pass(31s, {2, 9});
  ASSERT_TRUE(driver.errors.contains(id));
  EXPECT_EQ(driver.errors.at(id).code, ErrorCode::kTooLarge);
}

TEST(Absence, WhoCouldNotBeHeardIsNotSilent) {
  Four driver;
  const RequestId id = driver.start();
  driver.now += 5s;  // this process did not run
  driver.core.on_absence(5s, driver.now);
  driver.core.on_tick(driver.now);
  driver.settle();
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 4u);
  EXPECT_TRUE(driver.sink.failures.empty());
  driver.pass(1750ms, {9, 10});
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 4u) << "a whole lease to make themselves heard";
  driver.pass(500ms, {9, 10});
  EXPECT_EQ(driver.core.view(driver.now).workers.size(), 2u) << "then they are lost";
  EXPECT_FALSE(driver.errors.contains(id));
}

TEST(Absence, WhatItCostCountsForNoAttempt) {
  Four driver;
  const RequestId id = driver.start();
  for (uint32_t attempt = 1; attempt <= 6; ++attempt) {  // more than kAttemptsMax
    const PeerId rank = driver.holder(Kind::kRunChainStep, id, attempt);
    ASSERT_NE(rank, 0u) << attempt;
    driver.now += 5s;
    driver.core.on_absence(5s, driver.now);
    for (const PeerId peer : {PeerId{1}, PeerId{2}}) {  // they gave this coordinator up meanwhile, and come back
      driver.core.on_disconnected(peer, driver.now);
      driver.join(peer, true);
    }
    driver.settle();
    EXPECT_FALSE(driver.errors.contains(id)) << attempt;
  }
}

TEST(Attempts, ALongAnswerSurvivesAnyNumberOfKillsThatLetTokensThrough) {
  Four driver;
  const RequestId id = *driver.submit(
      {.external_id = "r", .prompt = Tokens(100, 7), .max_new_tokens = 3000, .workers_max = 1, .deadline = 600s});
  const uint32_t kills = 40;
  for (uint32_t attempt = 1; attempt <= kills; ++attempt) {
    const PeerId rank = driver.holder(Kind::kRunChainStep, id, attempt),
                 decode = driver.holder(Kind::kRunDecode, id, attempt);
    ASSERT_NE(rank, 0u) << attempt;
    driver.from(rank, CoreDriver::first_token(id, attempt, 5));
    driver.from(rank, CoreDriver::rank_done(id, attempt, 0));
    driver.core.on_disconnected(decode, driver.now);
    driver.join(decode, false);
  }
  EXPECT_EQ(driver.answer(id).size(), kills);
  EXPECT_FALSE(driver.errors.contains(id));
}

TEST(Attempts, FourInARowWithoutProgressEndIt) {
  Four driver;
  const RequestId id = driver.start(100, 3000);
  for (uint32_t attempt = 1; attempt <= 4; ++attempt) {
    const PeerId rank = driver.holder(Kind::kRunChainStep, id, attempt);
    ASSERT_NE(rank, 0u) << attempt;
    driver.core.on_disconnected(rank, driver.now);
    driver.join(rank, true);
  }
  ASSERT_TRUE(driver.errors.contains(id));
  EXPECT_EQ(driver.errors.at(id).code, ErrorCode::kWorkerLost);
}

TEST(Attempts, CrashesThatLetATokenThroughEachTimeEndToo) {
  Four driver;
  const RequestId id = driver.start(100, 3000);
  uint32_t attempt = 1;
  for (; !driver.errors.contains(id) && attempt < 1000; ++attempt) {
    const PeerId rank = driver.holder(Kind::kRunChainStep, id, attempt);
    ASSERT_NE(rank, 0u) << attempt;
    driver.from(rank, CoreDriver::first_token(id, attempt, 5));
    driver.core.on_disconnected(rank, driver.now);
    driver.from(driver.holder(Kind::kRunDecode, id, attempt), CoreDriver::ended(id, attempt));
    driver.join(rank, true);
  }
  EXPECT_EQ(attempt, static_cast<uint32_t>(limits::kAttemptsTotalMax) + 1);
}

}  // namespace
}  // namespace runahead::test
