#include "core_driver.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;
using Tokens = std::vector<TokenId>;

// ---- admission ----

TEST(Admission, RequestsThatCannotBeServedAreRefusedWithTheirReason) {
  Three driver;
  EXPECT_EQ(driver.submit(0, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(driver.submit(10, 0).error().code, ErrorCode::kInvalidArgument);
  const Error overflow = driver.submit(4000, 97).error();
  EXPECT_EQ(overflow.code, ErrorCode::kContextOverflow);
  EXPECT_NE(overflow.message.find("4000"), std::string::npos);
  EXPECT_NE(overflow.message.find("4096"), std::string::npos);
  EXPECT_TRUE(driver.submit(4000, 96));
  EXPECT_EQ(driver.submit({.prompt = {100}, .max_new_tokens = 1}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(driver.submit({.prompt = Tokens(256, 1), .max_new_tokens = 1, .strategy = Strategy::kByHand, .cuts = {100}})
                .error()
                .code,
            ErrorCode::kInvalidArgument)
      << "a cut inside a page";
}

TEST(Admission, WithoutWorkersOfBothKindsNothingIsAccepted) {
  CoreDriver driver;
  EXPECT_EQ(driver.submit(10, 1).error().code, ErrorCode::kUnavailable);
  driver.join(1, true);
  EXPECT_EQ(driver.submit(10, 1).error().code, ErrorCode::kUnavailable);
  driver.join(9, false);
  EXPECT_TRUE(driver.submit(10, 1));
}

TEST(Admission, ARequestThatNoPoolCouldEverHoldIsTooLarge) {
  CoreDriver driver;
  driver.join(1, true, 4);  // two pages a layer
  driver.join(9, false, 4);
  EXPECT_EQ(driver.submit(129, 1).error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(driver.submit(100, 29).error().code, ErrorCode::kTooLarge)
      << "the decode worker needs room for new tokens too";
  EXPECT_NE(driver.submit(129, 1).error().message.find("room for a prompt of 128 and for 128 with its answer"),
            std::string::npos);
  EXPECT_TRUE(driver.submit(100, 28));
}

TEST(Admission, PagesArePromisedOnceAndTheQueueWaitsInOrder) {
  CoreDriver driver;
  driver.join(1, true, 8);
  driver.join(9, false, 8);  // room for one request of 200 + 8 tokens (8 pages)
  const RequestId first = *driver.submit(200, 8);
  const RequestId second = *driver.submit(200, 8);
  const RequestId third = *driver.submit(200, 8);
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), first);
  EXPECT_EQ(driver.sink.queue.waiting, 2) << "nobody overtakes";
  driver.from(1, CoreDriver::first_token(first, 1, 5));
  driver.from(1, CoreDriver::rank_done(first, 1, 0));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), first) << "the decode worker has no room yet";
  driver.from(9, CoreDriver::tokens(first, 1, 1, Tokens(7, 5)));
  EXPECT_TRUE(driver.finished.contains(first));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), first) << "its pages are not back";
  driver.from(9, CoreDriver::decode_done(first, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), second);
  driver.core.cancel(second, driver.now);
  driver.settle();
  driver.from(1, CoreDriver::ended(second, 1));
  driver.from(9, CoreDriver::ended(second, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), third);
}

TEST(Admission, AShortRequestPassesALongOneThatWaitsButNotWhenThatIsDue) {
  CoreDriver driver;
  driver.join(1, true, 128);
  driver.join(9, false, 8);
  const RequestId first = *driver.submit(200, 8);  // takes the decode worker's pages
  const RequestId long_one = *driver.submit(220, 8);
  const RequestId small = *driver.submit(10, 2);
  driver.core.cancel(first, driver.now);
  driver.from(9, CoreDriver::ended(first, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), small);
  driver.pass(1s, {1, 9});  // far more than four times what 220 tokens take
  const RequestId late = *driver.submit(10, 2);
  EXPECT_NE(driver.last(1, Kind::kRunChainStep)->request(), late) << "there is room for it, but the long one is due";
  driver.core.cancel(small, driver.now);
  driver.from(9, CoreDriver::ended(small, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->request(), long_one);
}

TEST(Admission, EveryRankOfARequestHasTheSamePlaceOnItsLane) {
  CoreDriver driver;
  driver.join(1, true);
  driver.join(2, true);
  driver.join(9, false);
  InferenceRequest request{
      .prompt = std::vector<TokenId>(128, 7), .max_new_tokens = 1, .strategy = Strategy::kByHand, .cuts = {64}};
  ASSERT_TRUE(driver.submit(request));
  const uint64_t due = driver.last(1, Kind::kRunChainStep)->run_chain_step().lane_due();
  EXPECT_GT(due, 0u);
  EXPECT_EQ(driver.last(2, Kind::kRunChainStep)->run_chain_step().lane_due(), due);
  driver.now += 1ms;
  ASSERT_TRUE(driver.submit(request));
  EXPECT_GT(driver.last(1, Kind::kRunChainStep)->run_chain_step().lane_due(), due);
}

TEST(Admission, PromptsThatCameTogetherAreOnePieceOfWork) {
  const auto due = [](int64_t batch_tokens, std::optional<int32_t> logprobs) {
    Three driver;
    InferenceRequest request{
        .prompt = Tokens(128, 7), .max_new_tokens = 1, .prompt_logprobs = logprobs, .workers_max = 1};
    request.batch_tokens = batch_tokens;
    EXPECT_TRUE(driver.submit(request));
    for (const PeerId peer : {PeerId{1}, PeerId{2}})
      if (const auto* message = driver.last(peer, Kind::kRunChainStep))
        return static_cast<double>(message->run_chain_step().lane_due());
    return 0.0;
  };
  const double alone = due(0, {}), now = alone - (due(256, {}) - alone);  // the place of one that takes no time
  EXPECT_GT(alone, now);
  EXPECT_DOUBLE_EQ(due(128, {}), alone);
  EXPECT_NEAR((due(64 * 128, {}) - now) / (alone - now), 64, 1);
  EXPECT_NEAR((due(0, 5) - now) / (alone - now), 2, 0.1);
}

TEST(Admission, AShortPromptGoesToTheWorkerThatHasNothingToDo) {
  CoreDriver driver;
  driver.join(1, true);
  driver.join(2, true);
  driver.join(9, false);
  std::map<PeerId, int> taken;
  for (int i = 0; i < 4; ++i) {
    const RequestId id = *driver.submit(30, 4);  // one page: one rank
    for (const PeerId peer : {1, 2}) {
      const auto* step = driver.last(peer, Kind::kRunChainStep);
      taken[peer] += step != nullptr && step->request() == id;
    }
  }
  EXPECT_EQ(taken[1], 2);
  EXPECT_EQ(taken[2], 2);
}

TEST(Admission, RetryAfterCountsTheAnswersToo) {
  CoreDriver driver;
  driver.join(1, true, 4);
  driver.join(9, false, 4);
  const RequestId first = *driver.submit(10, 101);
  driver.from(1, CoreDriver::first_token(first, 1, 5));
  proto::Envelope done = CoreDriver::rank_done(first, 1, 0);
  done.mutable_rank_done()->mutable_timing()->set_compute_seconds(1e-4);
  driver.from(1, done);
  for (uint32_t index = 1; index <= 100; index += 10) {  // 40 tokens a second
    driver.pass(250ms, {1, 9});
    driver.from(9, CoreDriver::tokens(first, 1, index, Tokens(10, 5)));
  }
  driver.from(9, CoreDriver::decode_done(first, 1));
  ASSERT_TRUE(driver.finished.contains(first));
  Result<RequestId> last = first;
  int waiting = 0;
  for (; last; ++waiting) last = driver.submit(10, 2);
  const double answers = waiting * 2 / 40.0;
  EXPECT_NEAR(last.error().retry_after_seconds, answers, 0.2 * answers) << "prefill is nothing beside it";
}

TEST(Admission, AFullQueueSaysWhenToComeBack) {
  CoreDriver driver;
  driver.join(1, true, 2);
  driver.join(9, false, 2);
  for (size_t i = 0; i < limits::kQueuedRequestsMax + 1; ++i) ASSERT_TRUE(driver.submit(10, 1)) << i;
  const Error error = driver.submit(10, 1).error();
  EXPECT_EQ(error.code, ErrorCode::kOverloaded);
  EXPECT_GE(error.retry_after_seconds, 1);
}

// The wait is of what goes before it: a short prompt passes the long ones, and is taken.
TEST(Admission, WhatWouldWaitTooLongIsRefusedButNotWhatPasses) {
  constexpr int32_t kLong = CoreDriver::kContext - 8;
  const auto taken = [](Duration wait) {
    CoreDriver driver({}, {}, {}, /*prefix_cache=*/false, wait);
    driver.join(1, true, 1 << 20);
    driver.join(9, false, 1 << 20);
    size_t count = 0;
    Result<RequestId> last = driver.submit(kLong, 1);
    for (; last && count < 250; ++count) last = driver.submit(kLong, 1);
    EXPECT_TRUE(last || last.error().code == ErrorCode::kOverloaded);
    EXPECT_TRUE(driver.submit(1, 1)) << "it is due before them";
    return count;
  };
  EXPECT_EQ(taken(Duration(0)), limits::kQueueWaitFrom) << "so many are no overload, whatever they take";
  const size_t few = taken(2s), more = taken(4s);
  EXPECT_GT(few, limits::kQueueWaitFrom);
  EXPECT_NEAR(static_cast<double>(more) / static_cast<double>(few), 2, 0.1) << "twice the time, twice the queue";
}

// ---- one request ----

TEST(Request, EveryLinkOfTheChainIsToldItsPart) {
  Three driver;
  const RequestId id = driver.start();
  const proto::Envelope& first = *driver.last(1, Kind::kRunChainStep);
  const proto::Envelope& second = *driver.last(2, Kind::kRunChainStep);
  const proto::Envelope& decode = *driver.last(9, Kind::kRunDecode);
  EXPECT_EQ(attempt_of(first), (AttemptId{CoreDriver::kEpoch, id, 1}));
  EXPECT_EQ(first.run_chain_step().begin(), 0);
  EXPECT_EQ(first.run_chain_step().end(), 128);
  EXPECT_EQ(second.run_chain_step().begin(), 128);
  EXPECT_EQ(second.run_chain_step().end(), 256);
  EXPECT_FALSE(first.run_chain_step().has_upstream());
  EXPECT_EQ(first.run_chain_step().downstream().kv_address(), "kv-2");
  EXPECT_EQ(second.run_chain_step().upstream().kv_address(), "kv-1");
  EXPECT_EQ(first.run_chain_step().downstream().stream_token(), second.run_chain_step().upstream().stream_token());
  EXPECT_EQ(second.run_chain_step().downstream().kv_address(), "kv-9");
  EXPECT_EQ(second.run_chain_step().downstream().stream_token(), decode.run_decode().upstream().stream_token());
  EXPECT_NE(first.run_chain_step().downstream().stream_token(), second.run_chain_step().downstream().stream_token());
  EXPECT_EQ(decode.run_decode().prompt_len(), 256);
  EXPECT_EQ(decode.run_decode().max_new_tokens(), 3u);
  EXPECT_EQ(driver.held(1), 1);
}

TEST(Request, WhatARankSentTellsHowFastTheLinkBehindItIs) {
  Three driver;
  const auto link_into = [&](const std::string& role, size_t index) {
    std::vector<double> speeds;
    for (const WorkerView& worker : driver.core.view(driver.now).workers)
      if (worker.role == role) speeds.push_back(worker.link_bytes_per_second);
    return speeds.at(index);
  };
  const auto sent = [](proto::Envelope done, uint64_t bytes, double wire_seconds) {
    done.mutable_rank_done()->mutable_timing()->set_kv_sent_bytes(bytes);
    done.mutable_rank_done()->mutable_timing()->set_kv_wire_seconds(wire_seconds);
    return done;
  };
  const RequestId id = driver.start();
  driver.from(1, sent(CoreDriver::rank_done(id, 1, 0), 100'000'000, 0.5));
  EXPECT_NEAR(link_into("prefill", 1), 2e8, 1e7);
  EXPECT_EQ(link_into("prefill", 0), 0) << "nobody sends to the first rank";
  driver.from(2, sent(CoreDriver::rank_done(id, 1, 1), 100'000'000, 0));
  EXPECT_EQ(link_into("decode", 0), 0) << "too short to be measured";
}

TEST(Request, TokensComeInOrderAndTheEndReleasesEverything) {
  Three driver;
  const RequestId id = driver.start();
  driver.finish(id, 1, {5, 6, 8});
  EXPECT_EQ(driver.answer(id), (Tokens{5, 6, 8}));
  EXPECT_EQ(driver.last(9, Kind::kFirstToken)->first_token().token().id(), 5) << "forwarded to the decode worker";
  ASSERT_TRUE(driver.finished.contains(id));
  EXPECT_EQ(driver.finished[id].reason, FinishReason::kLength);
  EXPECT_EQ(driver.finished[id].report.ranks.size(), 2u);
  EXPECT_EQ(driver.finished[id].report.cuts, std::vector<int32_t>{128});
  EXPECT_EQ(driver.core.requests(), 0u);
  for (const PeerId peer : {1, 2, 9}) EXPECT_EQ(driver.held(peer), 0);
}

TEST(Request, TheEndWaitsForTheRanksReportsButNotForever) {
  Three driver;
  const RequestId id = *driver.submit({.prompt = Tokens(256, 7), .max_new_tokens = 1, .strategy = Strategy::kEven});
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  EXPECT_FALSE(driver.finished.contains(id));
  driver.from(2, CoreDriver::rank_done(id, 1, 1));
  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  ASSERT_TRUE(driver.finished.contains(id)) << "a lost rank has nothing to add";
  EXPECT_EQ(driver.answer(id), Tokens{5});
}

TEST(Request, AStopTokenEndsItAndIsNotPartOfTheAnswer) {
  Three driver;
  InferenceRequest request{
      .prompt = Tokens(256, 7), .max_new_tokens = 9, .stop_tokens = {42}, .strategy = Strategy::kEven};
  const RequestId id = *driver.submit(std::move(request));
  driver.finish(id, 1, {5, 42, 6});
  EXPECT_EQ(driver.answer(id), Tokens{5});
  EXPECT_EQ(driver.finished[id].reason, FinishReason::kStop);
}

TEST(Request, ADuplicateIsDroppedAndAGapFailsTheAttempt) {
  Three driver;
  const RequestId id = driver.start(5);
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  driver.from(9, CoreDriver::tokens(id, 1, 1, {6}));
  driver.from(9, CoreDriver::tokens(id, 1, 1, {6}));
  EXPECT_EQ(driver.answer(id), (Tokens{5, 6}));
  driver.from(9, CoreDriver::tokens(id, 1, 3, {8}));
  EXPECT_EQ(driver.answer(id), (Tokens{5, 6}));
  EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kInternal});
}

TEST(Request, CancelEndsItEverywhereAndPagesCountAsHeldUntilTheyAreBack) {
  Three driver;
  const RequestId id = driver.start();
  driver.core.cancel(id, driver.now);
  driver.settle();
  for (const PeerId peer : {1, 2, 9}) {
    EXPECT_EQ(driver.last(peer, Kind::kEndAttempt)->attempt(), 1u);
    EXPECT_EQ(driver.held(peer), 1);
    driver.from(peer, CoreDriver::ended(id, 1));
    EXPECT_EQ(driver.held(peer), 0);
  }
  EXPECT_EQ(driver.errors[id].code, ErrorCode::kCancelled);
  EXPECT_EQ(driver.sink.finished[0].outcome, RequestOutcome::kCancelled);
}

TEST(Request, AClientThatHasAllItWantsFinishesItAndDecodingStops) {
  Three driver;
  const RequestId id = driver.start();
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  driver.from(9, CoreDriver::tokens(id, 1, 1, {6}));
  driver.core.finish(id, driver.now);
  driver.settle();
  driver.from(9, CoreDriver::tokens(id, 1, 2, {7}));
  EXPECT_FALSE(driver.finished.contains(id)) << "the ranks have not reported yet";
  driver.from(1, CoreDriver::rank_done(id, 1, 0));
  driver.from(2, CoreDriver::rank_done(id, 1, 1));
  ASSERT_TRUE(driver.finished.contains(id));
  EXPECT_EQ(driver.finished[id].reason, FinishReason::kStop);
  EXPECT_EQ(driver.finished[id].generated, 2);
  EXPECT_EQ(driver.finished[id].report.ranks[0].compute_seconds, 0.5);
  EXPECT_EQ(driver.answer(id), (Tokens{5, 6})) << "nothing comes after it";
  ASSERT_NE(driver.last(9, Kind::kEndAttempt), nullptr) << "the decode worker would go on";
  EXPECT_EQ(driver.sink.finished[0].outcome, RequestOutcome::kOk);
  EXPECT_TRUE(driver.errors.empty());
}

TEST(Request, ADeadlineEndsItWhetherItWaitsOrRuns) {
  CoreDriver driver;
  driver.join(1, true, 2);
  driver.join(9, false, 2);
  const RequestId running = *driver.submit(10, 1, 2s);
  const RequestId waiting = *driver.submit(10, 1, 1s);
  driver.pass(1s, {1, 9});
  EXPECT_EQ(driver.errors[waiting].code, ErrorCode::kDeadlineExceeded);
  driver.pass(1s, {1, 9});
  EXPECT_EQ(driver.errors[running].code, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(driver.last(1, Kind::kEndAttempt), nullptr);
}

// A worker counts the same deadline, and its report may come before the coordinator's next tick.
TEST(Request, AnAttemptThatFailsAtTheDeadlineIsNotTriedAgainNorBlamedOnAWorker) {
  CoreDriver driver;
  driver.join(1, true, 2);
  driver.join(9, false, 2);
  const RequestId id = *driver.submit(10, 1, 100ms);
  driver.now += 100ms;
  driver.from(1, CoreDriver::failed(id, 1, ErrorCode::kDeadlineExceeded));
  ASSERT_TRUE(driver.errors.contains(id));
  EXPECT_EQ(driver.errors[id].code, ErrorCode::kDeadlineExceeded);
}

// ---- attempts ----

TEST(Attempts, ALostRankMakesThoseLeftDoItAgain) {
  Three driver;
  const RequestId id = driver.start();
  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  EXPECT_EQ(driver.last(2, Kind::kEndAttempt)->attempt(), 1u);
  const proto::Envelope& step = *driver.last(2, Kind::kRunChainStep);
  EXPECT_EQ(step.attempt(), 2u);
  EXPECT_EQ(step.run_chain_step().num_ranks(), 1u);
  EXPECT_EQ(step.run_chain_step().end(), 256);
  EXPECT_EQ(driver.last(9, Kind::kRunDecode)->attempt(), 2u);
  EXPECT_FALSE(driver.errors.contains(id));
}

TEST(Attempts, WhatTheClientHasGotBecomesPartOfThePrompt) {
  Three driver;
  driver.join(8, false);
  const RequestId id = driver.start(4);
  driver.from(1, CoreDriver::rank_done(id, 1, 0));
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  driver.from(2, CoreDriver::rank_done(id, 1, 1));
  const PeerId decode = driver.last(9, Kind::kRunDecode) ? 9 : 8, other = decode == 9 ? 8 : 9;
  driver.from(decode, CoreDriver::tokens(id, 1, 1, {6}));
  driver.core.on_disconnected(decode, driver.now);
  driver.settle();
  const proto::RunDecode& order = driver.last(other, Kind::kRunDecode)->run_decode();
  EXPECT_EQ(order.prompt_len(), 258);
  EXPECT_EQ(order.prompt(256), 5);
  EXPECT_EQ(order.prompt(257), 6);
  EXPECT_EQ(order.prompt_len_original(), 256u);
  EXPECT_EQ(order.max_new_tokens(), 2u);
  driver.from(2, CoreDriver::first_token(id, 2, 8));
  driver.from(other, CoreDriver::tokens(id, 2, 1, {11}));
  EXPECT_EQ(driver.answer(id), (Tokens{5, 6, 8, 11}));
}

TEST(Attempts, ARankThatIsDoneIsNotMissed) {
  Three driver;
  const RequestId id = driver.start();
  driver.from(1, CoreDriver::rank_done(id, 1, 0));
  driver.core.on_disconnected(1, driver.now);
  driver.settle();
  EXPECT_TRUE(driver.sink.failures.empty());
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  EXPECT_EQ(driver.answer(id), Tokens{5});
}

TEST(Attempts, EveryStaleMessageIsDropped) {
  Three driver;
  const RequestId id = driver.start(5);
  driver.from(2, CoreDriver::failed(id, 1, ErrorCode::kCorrupt));
  ASSERT_EQ(driver.last(9, Kind::kRunDecode)->attempt(), 2u);
  const size_t failures = driver.sink.failures.size();
  for (const proto::Envelope& stale :
       {CoreDriver::first_token(id, 1, 5), CoreDriver::tokens(id, 1, 0, {5, 6}),
        CoreDriver::failed(id, 1, ErrorCode::kInternal), CoreDriver::rank_done(id, 1, 0),
        CoreDriver::decode_done(id, 1), CoreDriver::ended(id, 1), CoreDriver::first_token(id + 1, 1, 5)})
    for (const PeerId peer : {1, 2, 9}) driver.from(peer, stale);
  EXPECT_TRUE(driver.answer(id).empty());
  EXPECT_EQ(driver.sink.failures.size(), failures);
  proto::Envelope other_epoch = CoreDriver::first_token(id, 2, 5);
  other_epoch.set_epoch(CoreDriver::kEpoch - 1);
  driver.from(2, other_epoch);
  EXPECT_TRUE(driver.answer(id).empty());
}

TEST(Attempts, WithoutTheFenceAStaleTokenWouldCount) {  // the planted bug that the simulation must find
  Three driver(TestFaults{.skip_attempt_check = true});
  const RequestId id = driver.start(5);
  driver.from(2, CoreDriver::failed(id, 1, ErrorCode::kCorrupt));
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  EXPECT_EQ(driver.answer(id), Tokens{5});
}

TEST(Attempts, TheyAreCountedAndTheLastErrorIsToldAsWorkerLost) {
  Three driver;
  const RequestId id = driver.start();
  for (uint32_t attempt = 1; attempt <= limits::kAttemptsMax; ++attempt) {
    EXPECT_FALSE(driver.errors.contains(id));
    for (const PeerId peer : {1, 2, 9}) driver.from(peer, CoreDriver::ended(id, attempt - 1));
    driver.from(9, CoreDriver::failed(id, attempt, ErrorCode::kCorrupt));
  }
  ASSERT_TRUE(driver.errors.contains(id));
  EXPECT_EQ(driver.errors[id].code, ErrorCode::kWorkerLost) << "kCorrupt is never shown to a client";
}

TEST(Attempts, AWorkerThatIsBlamedIsAvoidedWhileThereAreOthers) {
  Three driver;
  const RequestId id = driver.start();
  driver.from(2, CoreDriver::failed(id, 1, ErrorCode::kWorkerLost, 1));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 1u);
  EXPECT_EQ(driver.last(2, Kind::kRunChainStep)->attempt(), 2u);
  driver.from(2, CoreDriver::failed(id, 2, ErrorCode::kWorkerLost, 2));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 3u) << "better a blamed one than none";
}

TEST(Attempts, AFullWorkerIsTriedAgainAfterAPause) {
  Three driver;
  const RequestId id = driver.start();
  driver.from(2, CoreDriver::failed(id, 1, ErrorCode::kOverloaded));
  EXPECT_EQ(driver.last(9, Kind::kRunDecode)->attempt(), 1u);
  driver.pass(250ms, {1, 2, 9});
  EXPECT_EQ(driver.last(9, Kind::kRunDecode)->attempt(), 2u);
}

TEST(Attempts, ADecodeWorkerThatEndsEarlyFailsTheAttempt) {
  Three driver;
  const RequestId id = driver.start(5);
  driver.from(2, CoreDriver::first_token(id, 1, 5));
  driver.from(9, CoreDriver::decode_done(id, 1));
  EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kInternal});
  EXPECT_EQ(driver.last(9, Kind::kRunDecode)->attempt(), 2u);
}

TEST(Attempts, CutsByHandGiveWayWhenAWorkerIsLost) {
  Three driver;
  const RequestId id =
      *driver.submit({.prompt = Tokens(256, 7), .max_new_tokens = 2, .strategy = Strategy::kByHand, .cuts = {192}});
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->run_chain_step().end(), 192);
  driver.core.on_disconnected(2, driver.now);
  driver.settle();
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->run_chain_step().end(), 256);
  EXPECT_FALSE(driver.errors.contains(id));
}

TEST(Attempts, CutsByHandDoNotWaitForAWorkerThatIsAvoided) {
  Three driver;
  const RequestId id =
      *driver.submit({.prompt = Tokens(256, 7), .max_new_tokens = 2, .strategy = Strategy::kByHand, .cuts = {192}});
  driver.from(9, CoreDriver::failed(id, 1, ErrorCode::kWorkerLost, 2));
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->attempt(), 2u);
  EXPECT_EQ(driver.last(1, Kind::kRunChainStep)->run_chain_step().end(), 256);
}

}  // namespace
}  // namespace runahead::test
