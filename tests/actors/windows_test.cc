// A model whose middle layer sees the last 100 tokens only, through real actors in one process: the pools hold what is in reach.
#include "model/lease_shape.h"
#include "tests/actors/hash_cluster.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

constexpr int32_t kWindow = 100;
constexpr int32_t kTurn = 3;  // pages that so many tokens touch

class Windows : public ::testing::Test {
 protected:
  // One worker of each role, with so many pages.
  void start(int64_t prefill_pages, int64_t decode_pages) {
    cluster_.emplace(0, 0);
    add(true, prefill_pages);
    add(false, decode_pages);
  }
  void add(bool is_prefill, int64_t pages) {
    cluster_->add(is_prefill, pages);
    ASSERT_TRUE(
        cluster_->run_until([&] { return cluster_->coordinator->cluster().workers.size() == cluster_->nodes.size(); }));
  }
  HashCluster::Node& decode() { return *cluster_->nodes.back(); }
  void expect_answer(const InferenceRequest& request, const std::shared_ptr<Answer>& answer) {
    ASSERT_TRUE(cluster_->run_until([&] { return answer->finished || answer->error; }));
    ASSERT_TRUE(answer->finished) << answer->error->message;
    EXPECT_EQ(answer->tokens, expected_tokens(request));
    EXPECT_EQ(answer->finished->report.attempts, 1u) << "what is sent to a worker has room there";
  }
  // Asks, and waits until all workers have said what they keep.
  std::shared_ptr<Answer> answer_to(const InferenceRequest& request) {
    const auto answer = cluster_->ask(request);
    expect_answer(request, answer);
    EXPECT_TRUE(cluster_->run_until([&] {
      return std::ranges::all_of(cluster_->coordinator->cluster().workers,
                                 [](const auto& w) { return w.running == 0; });
    }));
    return answer;
  }

  HashWindow window_{kWindow};
  std::optional<HashCluster> cluster_;
};

// 16 columns. The two layers that see all have 32 pages of them, the other one three: 35 instead of 48.
TEST_F(Windows, ALongAnswerTakesOfTheDecodeWorkerWhatItsTokensSee) {
  const InferenceRequest request = request_of(300, 700);
  start(200, 2 * 16 + kTurn);
  answer_to(request);
  start(200, 2 * 16 + kTurn - 1);
  const auto refused = cluster_->answer_to(request);
  ASSERT_TRUE(refused->error);
  EXPECT_EQ(refused->error->code, ErrorCode::kTooLarge);
  EXPECT_NE(refused->error->message.find("for 960 with its answer"), std::string::npos) << refused->error->message;
}

// Two ranks: the first has two layers at once of eight columns, the last of the layer with the window what is seen from token 512
// on, 10 pages instead of 16. Nobody has room for the whole prompt, of 48.
TEST_F(Windows, AChainTakesAPromptThatNoWorkerHasRoomFor) {
  InferenceRequest request = request_of(1024, 3);
  request.strategy = Strategy::kEven;
  constexpr int64_t kLast = 2 * 16 + 10;
  for (const bool is_enough : {true, false}) {
    cluster_.emplace(0, 0);
    for (int i = 0; i < 2; ++i) add(true, is_enough ? kLast : kLast - 1);
    add(false, 200);
    if (!is_enough) {
      const auto refused = cluster_->answer_to(request);
      ASSERT_TRUE(refused->error);
      EXPECT_EQ(refused->error->code, ErrorCode::kTooLarge);
      continue;
    }
    answer_to(request);
    // Two at once, and those behind them, wait for each other; what has been kept of the first gives way.
    std::vector<InferenceRequest> requests;
    std::vector<std::shared_ptr<Answer>> answers;
    for (uint64_t seed = 2; seed < 6; ++seed) {
      requests.push_back(request_of(seed % 2 == 0 ? 1024 : 700, 3, seed));
      requests.back().strategy = seed < 4 ? Strategy::kEven : Strategy::kBalanced;
      answers.push_back(cluster_->ask(requests.back()));
    }
    for (size_t i = 0; i < answers.size(); ++i) expect_answer(requests[i], answers[i]);
  }
}

// To keep a prompt takes more, of the layer with the window, than to answer it: where there is no room for it, it is not kept.
TEST_F(Windows, WhatIsKeptOfAPromptKeepsNobodyWaiting) {
  const InferenceRequest requests[] = {request_of(300, 700, 1), request_of(300, 700, 2)};
  constexpr int64_t kOwn = 2 * 16 + kTurn, kKept = 2;  // the prompt's full pages that the last one's tokens see
  for (const bool is_enough : {true, false}) {
    start(200, 2 * kOwn + kKept - (is_enough ? 0 : 1));
    decode().engine.step_delay = 1ms;
    const auto first = cluster_->ask(requests[0]), second = cluster_->ask(requests[1]);
    expect_answer(requests[0], first);
    expect_answer(requests[1], second);
    EXPECT_EQ(decode().engine.largest_batch, is_enough ? 2u : 1u);
  }
}

// Of an answer that was longer than the window, its end is kept, and all of the layers that see all; and of its prompt all.
TEST_F(Windows, TurnsGoOnBehindLongAnswers) {
  start(400, 400);
  std::vector<TokenId> text = request_of(100, 1).prompt;
  const std::vector<TokenId> question = request_of(90, 1, 7).prompt;
  for (int turn = 0; turn < 3; ++turn) {
    const auto answer = answer_to({.prompt = text, .max_new_tokens = 400});
    const auto columns = static_cast<int32_t>(text.size() + 399) / kPageTokens;
    if (turn == 0) {
      EXPECT_EQ(decode().pool.usage().kept, 2 * columns + (kTurn - 1) + 1) << "one page of the prompt's";
    }
    const std::vector<TokenId> before = text;
    text.insert(text.end(), answer->tokens.begin(), answer->tokens.end());
    std::vector<TokenId> aside(text.begin(), text.end() - 150);
    text.insert(text.end(), question.begin(), question.end());
    aside.insert(aside.end(), question.begin(), question.end());
    // Behind a part of the answer nothing is left that could be gone on from, but behind the prompt.
    const auto other = answer_to({.prompt = aside, .max_new_tokens = 3});
    EXPECT_EQ(other->finished->report.cached_tokens, std::ssize(before) / kPageTokens * kPageTokens) << turn;
    const auto next = answer_to({.prompt = text, .max_new_tokens = 3});
    EXPECT_EQ(next->finished->report.cached_tokens, columns * kPageTokens) << turn;
  }
}

// Choices of one prompt, whose answers are far longer than the window: each has its own turns, and the prompt stays.
TEST_F(Windows, ChoicesShareTheirPromptAndTakeTurnsOfTheirOwn) {
  // Of 1300 tokens and 400 more: 27 columns, of which 20 are shared; of the layer with the window the last two.
  constexpr int64_t kPrompt = 2 * 20 + 2, kOwn = 2 * 7 + kTurn;
  start(200, kPrompt + 4 * kOwn);
  decode().engine.step_delay = 20ms;  // until all four are there, on a slow machine, too
  cluster_->nodes[0]->engine.layer_delay = 5ms;
  std::vector<InferenceRequest> requests;
  std::vector<std::shared_ptr<Answer>> answers;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    requests.push_back(request_of(1300, 400));
    requests.back().sampling.seed = seed;
    answers.push_back(cluster_->ask(requests.back()));
  }
  ASSERT_TRUE(cluster_->run_until([&] { return decode().engine.largest_batch == 4; }));
  decode().engine.step_delay = 0ms;
  EXPECT_EQ(decode().pool.usage().free, 0);
  for (size_t i = 0; i < answers.size(); ++i) expect_answer(requests[i], answers[i]);
  EXPECT_TRUE(cluster_->run_until([&] { return cluster_->pages_are_free(); }, 2s));
}

}  // namespace
}  // namespace runahead::test
