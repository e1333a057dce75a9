// Log-probabilities of a prompt: the same for every chain, before the first token, and nobody is held up by them.
#include "actors/coordinator/prompt_scores.h"

#include "base/limits.h"
#include "core_driver.h"
#include "tests/actors/hash_cluster.h"
#include "tests/support/naive_score.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;
using Scores = std::vector<SampledToken>;

Scores expected_scores(const InferenceRequest& request) {
  Scores scores;
  const std::span<const TokenId> prompt(request.prompt);
  for (size_t i = 1; i < prompt.size(); ++i)
    scores.push_back(naive_score(hash_logits(prompt.first(i)), prompt[i], *request.prompt_logprobs));
  return scores;
}

InferenceRequest scored_request(int32_t prompt_len, int32_t max_new_tokens, uint64_t seed = 1, int32_t top = 2) {
  InferenceRequest request = request_of(prompt_len, max_new_tokens, seed);
  request.prompt_logprobs = top;
  return request;
}

void expect_whole(const Answer& answer, const InferenceRequest& request) {
  ASSERT_TRUE(answer.finished) << (answer.error ? answer.error->message : "it hangs");
  ASSERT_TRUE(answer.prompt);
  EXPECT_TRUE(*answer.prompt == expected_scores(request));
  EXPECT_EQ(answer.tokens, expected_tokens(request));
}

TEST(PromptScores, EveryNumberOfWorkersAndEveryCutGivesTheModelsOwn) {
  HashCluster cluster(4);
  InferenceRequest request = scored_request(700, 3);
  request.strategy = Strategy::kByHand;
  for (const std::vector<int32_t>& cuts :
       {std::vector<int32_t>{}, {64}, {640}, {64, 128}, {192, 512}, {256, 448, 640}}) {
    request.cuts = cuts;
    SCOPED_TRACE(cuts.size());
    expect_whole(*cluster.answer_to(request), request);
  }
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }));
}

TEST(PromptScores, PromptsOfEveryLengthAroundAPageAndEveryNumberOfAlternatives) {
  HashCluster cluster(3);
  for (const int32_t length : {1, 2, 63, 64, 65, 127, 128, 129, 192, 193, 200})
    for (const int32_t top : {0, 1, limits::kTopLogprobsMax}) {
      SCOPED_TRACE(length);
      InferenceRequest request = scored_request(length, 2, static_cast<uint64_t>(length), top);
      request.strategy = Strategy::kEven;
      expect_whole(*cluster.answer_to(request), request);
    }
}

// Bias, penalties and bans shape the answer, and say nothing of the prompt.
TEST(PromptScores, AreTheModelsWhateverTheSampling) {
  HashCluster cluster(2);
  InferenceRequest request = scored_request(200, 6);
  request.strategy = Strategy::kEven;
  request.sampling.logit_bias = {{3, 50.0f}};
  request.sampling.repetition_penalty = 1.5f;
  expect_whole(*cluster.answer_to(request), request);
}

TEST(PromptScores, ComeBesideManyOtherRequests) {
  HashCluster cluster(3);
  std::vector<InferenceRequest> requests;
  std::vector<std::shared_ptr<Answer>> answers;
  for (int i = 0; i < 16; ++i) {
    requests.push_back(request_of(20 + 53 * i, 4, static_cast<uint64_t>(i) + 1));
    if (i % 3 != 0) requests.back().prompt_logprobs = i % 4;
    requests.back().strategy = Strategy::kEven;
    answers.push_back(cluster.ask(requests.back()));
  }
  EXPECT_TRUE(
      cluster.run_until([&] { return std::ranges::all_of(answers, [](auto& a) { return a->finished || a->error; }); }));
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i]->prompt.has_value(), requests[i].prompt_logprobs.has_value());
    if (requests[i].prompt_logprobs) expect_whole(*answers[i], requests[i]);
  }
}

// 29 jobs of 64 rows: the short one, which is due first, waits for one of them.
TEST(PromptScores, AShortPromptPassesThem) {
  HashCluster cluster(0);
  cluster.add(true, 4096, {.seconds_per_token = 1e-3});
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().ready(); }));
  std::atomic<std::chrono::milliseconds>& delay = cluster.nodes.back()->engine.score_delay;
  delay = 40ms;
  const InferenceRequest long_request = scored_request(1900, 1);
  const auto long_answer = cluster.ask(long_request);
  const Time until = cluster.clock.now() + 60ms;
  cluster.run_until([&] { return cluster.clock.now() >= until; });
  const InferenceRequest request = request_of(40, 2, 5);
  EXPECT_EQ(cluster.answer_to(request)->tokens, expected_tokens(request));
  EXPECT_FALSE(long_answer->prompt) << "the long one was first, and is not done";
  delay = 0ms;
  ASSERT_TRUE(cluster.run_until([&] { return long_answer->finished || long_answer->error; }));
  expect_whole(*long_answer, long_request);
}

TEST(PromptScores, AWorkerThatGoesMakesThoseLeftGiveTheSame) {
  for (const int victim : {0, 1, 2}) {
    HashCluster cluster(3);
    for (auto& node : cluster.nodes) node->engine.score_delay = 20ms;
    InferenceRequest request = scored_request(600, 6);
    request.strategy = Strategy::kEven;
    const auto answer = cluster.ask(request);
    const Time until = cluster.clock.now() + 30ms;
    cluster.run_until([&] { return cluster.clock.now() >= until; });
    EXPECT_FALSE(answer->prompt);
    cluster.nodes[static_cast<size_t>(victim)]->stop();
    EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
    expect_whole(*answer, request);
    EXPECT_GE(answer->finished->report.attempts, 2u) << "without worker " << victim;
  }
}

TEST(PromptScores, ARetryBehindTheFirstTokenDoesNotMakeThemAgain) {
  HashCluster cluster(2, 2);
  for (auto& node : cluster.nodes) node->engine.step_delay = 5ms;
  const InferenceRequest request = scored_request(150, 40);
  const auto answer = cluster.ask(request);
  EXPECT_TRUE(cluster.run_until([&] { return answer->tokens.size() >= 10; }));
  for (auto& node : cluster.nodes) {
    node->engine.score_delay = std::chrono::hours(1);
    if (node->decode && node->pool.usage().leased > 0) node->stop();
  }
  EXPECT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
  expect_whole(*answer, request);
  EXPECT_EQ(answer->finished->report.attempts, 2u);
}

TEST(PromptScores, NumbersThatOverflowAreAnErrorAndNoAnswer) {
  HashCluster cluster(2);
  for (auto& node : cluster.nodes) node->engine.overflows = true;
  InferenceRequest request = scored_request(200, 2);
  request.strategy = Strategy::kEven;
  const auto answer = cluster.answer_to(request);
  ASSERT_TRUE(answer->error);
  EXPECT_EQ(answer->error->code, ErrorCode::kInvalidModel);
  EXPECT_FALSE(answer->prompt);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.pages_are_free(); }));
}

TEST(PromptScores, StagesSumToTheTimeToFirstTokenThoughItWasHeld) {
  HashCluster cluster(2);
  cluster.nodes[0]->engine.score_delay = cluster.nodes[1]->engine.score_delay = 20ms;
  InferenceRequest request = scored_request(700, 2);
  request.strategy = Strategy::kByHand;
  request.cuts = {640};  // the last rank waits for ten jobs of the first one
  const auto answer = cluster.answer_to(request);
  expect_whole(*answer, request);
  const TtftReport& r = answer->finished->report;
  EXPECT_NEAR(r.stages.sum(), r.ttft_seconds, 0.01 * r.ttft_seconds);
  EXPECT_GT(r.stages[TtftStage::kOther], 0.1) << "held";
  EXPECT_LT(r.stages[TtftStage::kDispatch], 0.1);
}

// ---- the coordinator's part, by hand ----

// Peers 1 and 2 prefill tokens [0, 128) and [128, 256), 9 decodes.
struct ScoringPair : CoreDriver {
  ScoringPair() {
    join(1, true);
    join(2, true);
    join(9, false);
    InferenceRequest request{
        .prompt = std::vector<TokenId>(256, 7), .max_new_tokens = 3, .prompt_logprobs = 1, .strategy = Strategy::kEven};
    id = *submit(std::move(request));
  }
  proto::Envelope scores(uint32_t rank, int32_t begin, int32_t count, uint32_t attempt = 1, TokenId token = 7) const {
    proto::Envelope message = about(id, attempt);
    proto::PromptScores& scores = *message.mutable_prompt_scores();
    scores.set_rank(rank);
    scores.set_begin(begin);
    for (int32_t i = 0; i < count; ++i) {
      proto::Token& entry = *scores.add_tokens();
      entry.set_id(token);
      entry.set_logprob(-1);
      entry.add_top()->set_token(token);
    }
    return message;
  }
  RequestId id = 0;
};

TEST(PromptScoresInTheCore, EveryRankIsToldWhatItIsAskedFor) {
  ScoringPair driver;
  const proto::RunChainStep& first = driver.last(1, Kind::kRunChainStep)->run_chain_step();
  ASSERT_TRUE(first.has_scoring());
  EXPECT_EQ(first.scoring().top(), 1);
  EXPECT_EQ(first.scoring().next_token(), 7);
  EXPECT_TRUE(driver.last(2, Kind::kRunChainStep)->run_chain_step().has_scoring());
  const RequestId plain = *driver.submit(100, 3);
  for (const PeerId peer : {PeerId{1}, PeerId{2}}) {
    const proto::Envelope* step = driver.last(peer, Kind::kRunChainStep);
    EXPECT_EQ(step->run_chain_step().has_scoring(), step->request() != plain);
  }
}

TEST(PromptScoresInTheCore, TheFirstTokenWaitsForAllOfThem) {
  ScoringPair driver;
  driver.from(2, driver.scores(1, 129, 64));
  driver.from(2, driver.scores(1, 193, 63));
  driver.from(2, CoreDriver::first_token(driver.id, 1, 5));
  EXPECT_TRUE(driver.answer(driver.id).empty());
  EXPECT_EQ(driver.last(9, Kind::kFirstToken), nullptr) << "or tokens would come before it";
  driver.from(1, driver.scores(0, 1, 64));
  EXPECT_TRUE(driver.answer(driver.id).empty());
  driver.from(1, driver.scores(0, 65, 64));
  EXPECT_EQ(driver.answer(driver.id), std::vector<TokenId>{5});
  ASSERT_NE(driver.last(9, Kind::kFirstToken), nullptr);
  ASSERT_EQ(driver.prompts[driver.id].size(), 255u);
  driver.from(1, CoreDriver::rank_done(driver.id, 1, 0));
  driver.from(2, CoreDriver::rank_done(driver.id, 1, 1));
  driver.from(9, CoreDriver::tokens(driver.id, 1, 1, {6, 8}));
  EXPECT_TRUE(driver.finished.contains(driver.id));
}

TEST(PromptScoresInTheCore, WhatIsNoPartOfTheRanksOwnFailsTheAttempt) {
  using Make = std::function<proto::Envelope(const ScoringPair&)>;
  const std::vector<std::pair<const char*, Make>> cases = {
      {"a gap", [](const ScoringPair& d) { return d.scores(0, 2, 10); }},
      {"of another rank", [](const ScoringPair& d) { return d.scores(0, 129, 10); }},
      {"at the end of the context", [](const ScoringPair& d) { return d.scores(0, CoreDriver::kContext - 1, 1); }},
      {"of another token", [](const ScoringPair& d) { return d.scores(0, 1, 10, 1, 8); }},
      {"more alternatives than asked for",
       [](const ScoringPair& d) {
         proto::Envelope message = d.scores(0, 1, 10);
         message.mutable_prompt_scores()->mutable_tokens(3)->add_top();
         return message;
       }},
      {"an end without them", [](const ScoringPair& d) { return CoreDriver::rank_done(d.id, 1, 0); }},
  };
  for (const auto& [what, make] : cases) {
    SCOPED_TRACE(what);
    ScoringPair driver;
    driver.from(1, make(driver));
    EXPECT_EQ(driver.sink.failures, std::vector{ErrorCode::kInternal});
    EXPECT_FALSE(driver.errors.contains(driver.id)) << "it is tried again";
  }
  ScoringPair driver;
  driver.from(1, driver.scores(0, 1, 64));
  driver.from(1, driver.scores(0, 65, 64));
  driver.from(1, driver.scores(0, 129, 1));
  EXPECT_EQ(driver.sink.failures.size(), 1u) << "behind its end";
}

TEST(PromptScoresInTheCore, ThoseOfAnEarlierAttemptAreNotHeard) {
  ScoringPair driver;
  driver.from(1, driver.scores(0, 1, 64));
  driver.from(2, CoreDriver::failed(driver.id, 1, ErrorCode::kCorrupt));
  const proto::Envelope* step = driver.last(1, Kind::kRunChainStep);
  ASSERT_EQ(step->attempt(), 2u);
  ASSERT_TRUE(step->run_chain_step().has_scoring());
  ASSERT_EQ(step->run_chain_step().num_ranks(), 2u);
  driver.from(1, driver.scores(0, 65, 64));  // of the first attempt
  EXPECT_EQ(driver.sink.failures.size(), 1u);
  driver.from(2, driver.scores(1, 129, 64, 2));
  driver.from(2, driver.scores(1, 193, 63, 2));
  driver.from(2, CoreDriver::first_token(driver.id, 2, 5));
  driver.from(1, driver.scores(0, 1, 64, 2));
  EXPECT_TRUE(driver.answer(driver.id).empty()) << "the first attempt's do not count";
  driver.from(1, driver.scores(0, 65, 64, 2));
  EXPECT_EQ(driver.answer(driver.id), std::vector<TokenId>{5});
}

}  // namespace
}  // namespace runahead::test
