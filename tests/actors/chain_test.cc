// The whole way of a request through real actors in one process: chain, cut-through, decode, cancel, loss, restart.
#include "base/limits.h"
#include "tests/actors/hash_cluster.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

TEST(Chain, OneWorkerAnswersWithTheModelsOwnTokens) {
  HashCluster cluster(1);
  const InferenceRequest request = request_of(200, 12);
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  ASSERT_TRUE(answer->finished);
  EXPECT_EQ(answer->finished->reason, FinishReason::kLength);
  EXPECT_EQ(answer->finished->generated, 12);
}

TEST(Chain, EveryNumberOfWorkersAndEveryCutGivesTheSameTokensAndLogits) {
  HashCluster cluster(4);
  InferenceRequest request = request_of(700, 8);
  const std::vector<TokenId> expected = expected_tokens(request);
  std::string sha256;
  const std::vector<std::vector<int32_t>> cuts = {{},         {64},           {640},          {64, 128},
                                                  {192, 512}, {64, 128, 192}, {256, 448, 640}};
  for (const auto& cut : cuts) {
    request.strategy = Strategy::kByHand;
    request.cuts = cut;
    const auto answer = cluster.answer_to(request);
    EXPECT_EQ(answer->tokens, expected);
    ASSERT_TRUE(answer->finished) << answer->error->message;
    EXPECT_EQ(answer->finished->report.ranks.size(), cut.size() + 1);
    EXPECT_EQ(answer->finished->report.cuts, cut);
    if (sha256.empty()) sha256 = answer->finished->report.first_logits_sha256;
    EXPECT_EQ(answer->finished->report.first_logits_sha256, sha256);
    EXPECT_EQ(sha256.size(), 64u);
  }
}

// Of three layers the first rank has memory for two at once, the last one and the decode worker for all.
TEST(Chain, OnlyTheLastRankHoldsEveryLayer) {
  HashCluster cluster(2);
  for (auto& node : cluster.nodes) node->engine.layer_delay = 10ms;
  InferenceRequest request = request_of(512, 2);
  request.strategy = Strategy::kByHand;
  request.cuts = {320};
  const auto answer = cluster.ask(request);
  const auto leased = [&](size_t node) { return cluster.nodes[node]->pool.usage().leased; };
  ASSERT_TRUE(cluster.run_until([&] { return leased(0) > 0 && leased(1) > 0; }));
  EXPECT_EQ(leased(0), 2 * 5) << "pages of the first 320 tokens";
  EXPECT_EQ(leased(1), 3 * 8) << "of all 512";
  ASSERT_TRUE(cluster.run_until([&] { return answer->finished.has_value() || answer->error.has_value(); }));
  EXPECT_EQ(answer->tokens, expected_tokens(request));
}

TEST(Chain, PromptsOfEveryLengthAroundAPageAreAnswered) {
  HashCluster cluster(3);
  for (const int32_t length : {1, 2, 63, 64, 65, 127, 128, 129, 192, 200}) {
    InferenceRequest request = request_of(length, 4, static_cast<uint64_t>(length));
    request.strategy = Strategy::kEven;
    EXPECT_EQ(cluster.answer_to(request)->tokens, expected_tokens(request)) << length;
  }
}

// Every layer job of the long one takes a while; the short one has three layers too, and waits for no more than one of them.
TEST(Chain, AShortPromptPassesALongOne) {
  HashCluster cluster(0);
  // So the long one is due seconds later than a short one that comes with it, however late this test asks for that.
  auto& node = cluster.add(true, 4096, {.seconds_per_token = 1e-3});
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().workers.size() == 2; }));
  node.engine.layer_delay = 30ms;
  InferenceRequest long_request = request_of(1900, 2);  // 29 slices a layer
  const auto long_answer = cluster.ask(long_request);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().running == 1; }));
  const InferenceRequest request = request_of(40, 2, 5);
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  EXPECT_TRUE(long_answer->tokens.empty()) << "the long one was first, and is not done";
  node.engine.layer_delay = 0ms;
  ASSERT_TRUE(cluster.run_until([&] { return long_answer->finished || long_answer->error; }));
  EXPECT_EQ(long_answer->tokens, expected_tokens(long_request)) << "it was interrupted, and no bit is another";
}

TEST(Chain, EqualPromptsEndOneAfterTheOther) {
  HashCluster cluster(1);
  cluster.nodes[0]->engine.layer_delay = 5ms;
  std::vector<std::shared_ptr<Answer>> answers;
  std::vector<size_t> order;
  for (uint64_t i = 0; i < 4; ++i) answers.push_back(cluster.ask(request_of(640, 1, i + 1)));
  ASSERT_TRUE(cluster.run_until([&] {
    for (size_t i = 0; i < answers.size(); ++i)
      if (!answers[i]->tokens.empty() && std::ranges::count(order, i) == 0) order.push_back(i);
    return order.size() == answers.size();
  }));
  EXPECT_EQ(order, (std::vector<size_t>{0, 1, 2, 3}));
}

TEST(Chain, TheFirstTokenNeedsNoDecodeSlot) {
  HashCluster cluster(1, 0);
  cluster.add(false, 4096, {.attempts_max = 16, .decode_slots = 2});
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().ready(); }));
  HashCluster::Node& decode = *cluster.nodes.back();
  decode.engine.step_delay = 20ms;
  std::vector<std::shared_ptr<Answer>> answers;
  for (uint64_t i = 0; i < 2; ++i) answers.push_back(cluster.ask(request_of(64, 400, i + 1)));
  ASSERT_TRUE(
      cluster.run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a->tokens.size() > 1; }); }));
  const InferenceRequest third = request_of(64, 3, 9);
  const auto late = cluster.ask(third);
  ASSERT_TRUE(cluster.run_until([&] { return !late->tokens.empty(); }));
  EXPECT_LT(answers[0]->tokens.size(), 400u) << "both slots are taken all the while";
  EXPECT_EQ(late->tokens.size(), 1u);
  decode.engine.step_delay = 0ms;
  ASSERT_TRUE(cluster.run_until([&] { return late->finished || late->error; }));
  EXPECT_EQ(late->tokens, expected_tokens(third));
  EXPECT_EQ(decode.engine.largest_batch, 2u);
}

TEST(Chain, NumbersThatOverflowAreAnErrorAndNoAnswer) {
  HashCluster cluster(1);
  cluster.nodes[0]->engine.overflows = true;
  const auto first = cluster.answer_to(request_of(100, 4));
  ASSERT_TRUE(first->error);
  EXPECT_EQ(first->error->code, ErrorCode::kInvalidModel);
  EXPECT_TRUE(first->tokens.empty());
  cluster.nodes[0]->engine.overflows = false;

  HashCluster::Node& decode = *cluster.nodes.back();
  decode.engine.step_delay = 5ms;
  const InferenceRequest good = request_of(64, 200, 2);
  const auto whole = cluster.ask(good);  // the older one: the first row of the batch
  ASSERT_TRUE(cluster.run_until([&] { return whole->tokens.size() > 2; }));
  const auto later = cluster.ask(request_of(64, 200, 3));
  ASSERT_TRUE(cluster.run_until([&] { return later->tokens.size() > 2; }));
  decode.engine.overflows = true;
  ASSERT_TRUE(cluster.run_until([&] { return later->error.has_value(); }));
  decode.engine.overflows = false;
  EXPECT_EQ(later->error->code, ErrorCode::kInvalidModel);
  EXPECT_TRUE(cluster.run_until([&] { return whole->finished || whole->error; }));
}

TEST(Chain, AnAllocationThatFailsCostsAnAttemptAndNoWorker) {
  HashCluster cluster(2);
  for (size_t i = 0; i < 2; ++i) cluster.nodes[i]->engine.no_memory_times = 1;
  const InferenceRequest request = request_of(300, 20);
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  EXPECT_GT(answer->finished->report.attempts, 1u);
  for (size_t i = 0; i < 2; ++i) cluster.nodes[i]->engine.no_memory_times = 0;  // one of them may have had no part

  HashCluster::Node& decode = *cluster.nodes.back();
  decode.engine.step_delay = 2ms;
  std::vector<InferenceRequest> requests;
  std::vector<std::shared_ptr<Answer>> answers;
  for (uint64_t i = 1; i <= 3; ++i) {
    requests.push_back(request_of(64, 100, i));
    answers.push_back(cluster.ask(requests.back()));
  }
  ASSERT_TRUE(
      cluster.run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a->tokens.size() > 2; }); }));
  decode.engine.no_memory_times = 1;
  ASSERT_TRUE(
      cluster.run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a->finished || a->error; }); }));
  uint32_t attempts = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i]->tokens, expected_tokens(requests[i]));
    if (answers[i]->finished) attempts += answers[i]->finished->report.attempts;
  }
  EXPECT_EQ(attempts, 4u) << "one of them, once more";
  EXPECT_EQ(cluster.coordinator->cluster().workers.size(), 3u);
}

TEST(Chain, OneTokenIsEnough) {
  HashCluster cluster(2);
  InferenceRequest request = request_of(300, 1);
  request.strategy = Strategy::kEven;
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  ASSERT_TRUE(answer->finished);
  EXPECT_GT(answer->finished->report.ranks[0].compute_seconds, 0);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }));
}

TEST(Chain, AStopTokenEndsTheAnswer) {
  HashCluster cluster(2);
  InferenceRequest request = request_of(100, 50);
  std::vector<TokenId> tokens = expected_tokens(request);
  const auto first_new = std::ranges::find_if(tokens, [&](TokenId token) { return token != tokens[0]; });
  for (const TokenId stop : {tokens[0], *first_new}) {
    request.stop_tokens = {stop};
    const auto answer = cluster.answer_to(request);
    EXPECT_EQ(answer->tokens, expected_tokens(request));
    ASSERT_TRUE(answer->finished);
    EXPECT_EQ(answer->finished->reason, FinishReason::kStop);
  }
}

TEST(Chain, PenaltiesSeePromptAndAnswer) {
  HashCluster cluster(3);
  InferenceRequest request = request_of(300, 20);
  request.strategy = Strategy::kEven;
  request.sampling.repetition_penalty = 1.7f;
  request.sampling.frequency_penalty = 0.9f;
  EXPECT_EQ(cluster.answer_to(request)->tokens, expected_tokens(request));
}

TEST(Chain, ManyRequestsAtOnceShareTheBatchAndDoNotTouchEachOther) {
  HashCluster cluster(3);
  cluster.nodes.back()->engine.step_delay = 2ms;
  std::vector<InferenceRequest> requests;
  std::vector<std::shared_ptr<Answer>> answers;
  for (int i = 0; i < 20; ++i) {
    requests.push_back(request_of(20 + 37 * i, 5 + i, static_cast<uint64_t>(i) + 1));
    requests.back().strategy = i % 2 ? Strategy::kEven : Strategy::kBalanced;
    answers.push_back(cluster.ask(requests.back()));
  }
  EXPECT_TRUE(
      cluster.run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a->finished || a->error; }); }));
  for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i]->tokens, expected_tokens(requests[i])) << i;
  EXPECT_GT(cluster.nodes.back()->engine.largest_batch, 1u);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }));
}

// ---- where the time goes ----

TEST(Ttft, StagesSumToTheTimeToFirstTokenWithinOnePercent) {
  HashCluster cluster(3);
  double unexplained = 1;
  for (auto& node : cluster.nodes) node->engine.layer_delay = 3ms;
  for (int i = 0; i < 6; ++i) {
    InferenceRequest request = request_of(400, 3, static_cast<uint64_t>(i) + 1);
    request.strategy = Strategy::kEven;
    request.received_at = cluster.clock.now() - 5ms;
    request.tokenize_time = 4ms;
    const auto answer = cluster.answer_to(request);
    ASSERT_TRUE(answer->finished);
    const TtftReport& r = answer->finished->report;
    EXPECT_NEAR(r.stages.sum(), r.ttft_seconds, 0.01 * r.ttft_seconds);
    EXPECT_NEAR(r.stages[TtftStage::kTokenize], 0.004, 1e-9);
    EXPECT_GE(r.stages[TtftStage::kRespond], 0.001 - 1e-9);
    EXPECT_GE(r.stages[TtftStage::kPrefillCompute], 3 * 0.003);
    EXPECT_GE(r.stages[TtftStage::kOther], 0);
    EXPECT_GE(r.stages[TtftStage::kDispatch], 0);
    EXPECT_GT(r.predicted_ttft_seconds, 0);
    unexplained = std::min(unexplained, r.stages[TtftStage::kOther] / r.ttft_seconds);
  }
  EXPECT_LT(unexplained, 0.2) << "the named stages explain it, where the machine is not busy with something else";
}

// ---- cancel ----

class Cancel : public testing::TestWithParam<int> {};

TEST_P(Cancel, AtAnyTimeFreesEveryPage) {
  HashCluster cluster(3);
  for (auto& node : cluster.nodes) {
    node->engine.layer_delay = 4ms;
    node->engine.step_delay = 4ms;
  }
  InferenceRequest request = request_of(600, 200);
  request.strategy = Strategy::kEven;
  Result<std::shared_ptr<TokenStream>> stream = cluster.coordinator->submit(request);
  ASSERT_TRUE(stream);
  const Time until = cluster.clock.now() + std::chrono::milliseconds(GetParam());
  cluster.run_until([&] { return cluster.clock.now() >= until; });
  if (GetParam() % 2) (*stream)->cancel();
  stream->reset();  // the client has gone away
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }, 2s));
  EXPECT_EQ(cluster.coordinator->cluster().running, 0);
  EXPECT_TRUE(cluster.run_until([&] {
    return std::ranges::all_of(cluster.coordinator->cluster().workers, [](auto& w) { return w.running == 0; });
  }));
}
INSTANTIATE_TEST_SUITE_P(Milliseconds, Cancel, testing::Values(0, 1, 2, 5, 8, 13, 18, 25, 40, 61, 100));

TEST(Chain, AReaderThatFinishesEarlyGetsTheReportAndFreesEveryPage) {
  HashCluster cluster(3);
  for (auto& node : cluster.nodes) node->engine.step_delay = 4ms;
  Result<std::shared_ptr<TokenStream>> stream = cluster.coordinator->submit(request_of(600, 1000));
  ASSERT_TRUE(stream);
  auto answer = std::make_shared<Answer>();
  asio::co_spawn(cluster.io, HashCluster::read(*stream, answer, cluster.clock), asio::detached);
  ASSERT_TRUE(cluster.run_until([&] { return answer->tokens.size() >= 3; }));
  (*stream)->finish();
  ASSERT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
  ASSERT_TRUE(answer->finished);
  EXPECT_EQ(answer->finished->reason, FinishReason::kStop);
  EXPECT_GT(answer->finished->report.ttft_seconds, 0);
  EXPECT_LT(answer->tokens.size(), 100u);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }, 2s));
}

TEST(Chain, AReaderThatDoesNotReadIsCancelledAtTheBound) {
  HashCluster cluster(1);
  InferenceRequest request = request_of(10, 1000);
  Result<std::shared_ptr<TokenStream>> stream = cluster.coordinator->submit(request);
  ASSERT_TRUE(stream);
  EXPECT_TRUE(
      cluster.run_until([&] { return cluster.pages_are_free() && cluster.coordinator->cluster().running == 0; }));
  auto answer = std::make_shared<Answer>();
  asio::co_spawn(cluster.io, HashCluster::read(*stream, answer, cluster.clock), asio::detached);
  EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
  EXPECT_EQ(answer->tokens, expected_tokens(request)) << "1,000 tokens are under the bound: nothing is lost";
}

TEST(Chain, ADeadlineEndsTheRequestEverywhere) {
  HashCluster cluster(2);
  for (auto& node : cluster.nodes) node->engine.layer_delay = 200ms;
  InferenceRequest request = request_of(300, 5);
  request.deadline = 100ms;
  const auto answer = cluster.answer_to(request);
  ASSERT_TRUE(answer->error);
  EXPECT_EQ(answer->error->code, ErrorCode::kDeadlineExceeded);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }, 3s));
}

// ---- loss ----

TEST(Loss, APrefillWorkerThatGoesMakesThoseLeftGiveTheSameAnswer) {
  for (const int victim : {0, 1, 2}) {
    HashCluster cluster(3);
    for (auto& node : cluster.nodes) node->engine.layer_delay = 10ms;
    InferenceRequest request = request_of(600, 6);
    request.strategy = Strategy::kEven;
    const auto answer = cluster.ask(request);
    const Time until = cluster.clock.now() + 15ms;
    cluster.run_until([&] { return cluster.clock.now() >= until; });
    cluster.nodes[static_cast<size_t>(victim)]->stop();
    EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
    EXPECT_EQ(answer->tokens, expected_tokens(request)) << "without worker " << victim;
    ASSERT_TRUE(answer->finished);
    EXPECT_GE(answer->finished->report.attempts, 2u);
  }
}

TEST(Loss, ADecodeWorkerThatGoesInTheMiddleLosesAndDoublesNoToken) {
  HashCluster cluster(2, 2);
  for (auto& node : cluster.nodes) node->engine.step_delay = 5ms;
  for (int round = 0; round < 2; ++round) {
    InferenceRequest request = request_of(150, 40, static_cast<uint64_t>(round) + 5);
    request.sampling.presence_penalty = 0.5f;
    const auto answer = cluster.ask(request);
    EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() >= 10; }));
    for (auto& node : cluster.nodes)
      if (node->decode && node->running && node->pool.usage().leased > 0 && round == 0) node->stop();
    EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
    EXPECT_EQ(answer->tokens, expected_tokens(request));
    ASSERT_TRUE(answer->finished);
    EXPECT_EQ(answer->finished->report.attempts, round == 0 ? 2u : 1u);
  }
}

TEST(Loss, TheLastDecodeWorkerIsWaitedFor) {
  HashCluster cluster(1, 1);
  cluster.nodes[1]->engine.step_delay = 5ms;
  const InferenceRequest request = request_of(150, 40);
  const auto answer = cluster.ask(request);
  EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() >= 5; }));
  cluster.nodes[1]->stop();
  EXPECT_TRUE(cluster.run_until([&] { return !cluster.nodes[1]->running; }));
  cluster.add(false);
  EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
  EXPECT_EQ(answer->tokens, expected_tokens(request));
}

TEST(Loss, ADamagedPageIsNeverUsedAndTheRequestIsTriedAgain) {
  HashCluster cluster(2);
  int pages = 0;
  cluster.kv_hub->damage = [&](auto, std::span<std::byte> page) {
    if (++pages == 3) page[17] ^= std::byte{1};
  };
  InferenceRequest request = request_of(400, 6);
  request.strategy = Strategy::kEven;
  const auto answer = cluster.answer_to(request);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  ASSERT_TRUE(answer->finished);
  EXPECT_EQ(answer->finished->report.attempts, 2u);
}

TEST(Loss, ACoordinatorThatComesBackFindsEverythingFree) {
  HashCluster cluster(2);
  for (auto& node : cluster.nodes) node->engine.layer_delay = 20ms;
  const auto answer = cluster.ask(request_of(600, 100));
  const Time until = cluster.clock.now() + 30ms;
  cluster.run_until([&] { return cluster.clock.now() >= until; });
  cluster.coordinator_reachable = false;
  for (PeerId peer = 1; peer <= cluster.hub.last_peer(); ++peer) cluster.hub.cut(peer, "the coordinator died");
  cluster.stop_coordinator();
  cluster.coordinator.reset();
  EXPECT_TRUE(cluster.run_until([&] { return answer->error.has_value(); }));
  EXPECT_EQ(answer->error->code, ErrorCode::kUnavailable);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }, 2s));
  cluster.start_coordinator({.epoch = 2});
  cluster.coordinator_reachable = true;
  EXPECT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().ready(); }, 5s));
  const InferenceRequest request = request_of(100, 5);
  EXPECT_EQ(cluster.answer_to(request)->tokens, expected_tokens(request));
}

TEST(Loss, WorkersThatHearNothingEndTheirAttemptsAndComeBack) {
  HashCluster cluster(2);
  for (auto& node : cluster.nodes) node->engine.step_delay = 20ms;
  const auto answer = cluster.ask(request_of(100, 1000));
  EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() > 3; }));
  cluster.hub.lose_messages(true);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }, 2 * limits::kLeaseDuration));
  cluster.hub.lose_messages(false);
  EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() > 60 || answer->error; }, 15s))
      << "the request goes on";
  EXPECT_FALSE(answer->error);
}

// ---- coming and going ----

TEST(Membership, ARefusedWorkerTriesAgainUntilItFits) {
  HashCluster cluster(1, 1);
  const auto members = [&] { return cluster.coordinator->cluster().workers.size(); };
  EXPECT_TRUE(cluster.run_until([&] { return members() == 2; }));
  HashCluster::Node& stranger = cluster.add(true, 64, {}, "another model");
  cluster.run_until([] { return false; }, 500ms);  // it has been refused, and waits
  EXPECT_EQ(members(), 2u);
  EXPECT_TRUE(stranger.running);
  stranger.engine.set_fingerprint(cluster.nodes.front()->engine.fingerprint());  // somebody has mended it
  EXPECT_TRUE(cluster.run_until([&] { return members() == 3; }));
}

TEST(Membership, DrainFinishesWhatRuns) {
  HashCluster cluster(2, 1);
  for (auto& node : cluster.nodes) node->engine.step_delay = 2ms;
  const InferenceRequest request = request_of(100, 60);
  const auto answer = cluster.ask(request);
  EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() > 3; }));
  for (auto& node : cluster.nodes) node->drain();
  EXPECT_TRUE(
      cluster.run_until([&] { return std::ranges::none_of(cluster.nodes, [](auto& node) { return node->running; }); }));
  EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
  EXPECT_EQ(answer->tokens, expected_tokens(request));
  for (auto& node : cluster.nodes) EXPECT_TRUE(node->ended);
}

TEST(Membership, TheCoordinatorDrainsBeforeItStops) {
  HashCluster cluster(1, 1);
  cluster.nodes[1]->engine.step_delay = 2ms;
  const InferenceRequest request = request_of(100, 40);
  const auto answer = cluster.ask(request);
  bool drained = false;
  asio::co_spawn(cluster.io, cluster.coordinator->drain(), [&](std::exception_ptr) { drained = true; });
  EXPECT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().draining; }));
  EXPECT_EQ(cluster.coordinator->submit(request).error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(cluster.run_until([&] { return drained; }));
  EXPECT_EQ(answer->tokens, expected_tokens(request));
}

}  // namespace
}  // namespace runahead::test
