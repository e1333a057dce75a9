// Pages that workers keep, through real actors in one process: prompts that begin alike, turns of conversations, choices.
#include "base/limits.h"
#include "tests/actors/hash_cluster.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

// Parameter: the window of one layer, 0 for none.
class KeptPages : public ::testing::TestWithParam<int32_t> {
  HashWindow window_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Windows, KeptPages, ::testing::Values(0, 100, 200));

// Conversations and documents: prompts that begin alike, one after the other and at once, over one to three workers with little
// memory. Whatever is kept, shared and dropped, the tokens and logits are those of the model.
TEST_P(KeptPages, OfBeginningsChangeNoBit) {
  HashCluster cluster(0);
  for (int i = 0; i < 3; ++i) cluster.add(true, /*pages=*/120);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().workers.size() == 4; }));
  SeededRng rng(17);
  int64_t cached = 0, written = 0;
  for (int round = 0; round < 60; ++round) {
    const auto seed = 1 + rng.next() % 3;
    std::vector<InferenceRequest> requests;
    std::vector<std::shared_ptr<Answer>> answers;
    for (uint64_t i = 0; i <= rng.next() % 3; ++i) {
      InferenceRequest request = request_of(static_cast<int32_t>(1 + rng.next() % 640), 3, seed);
      for (uint64_t own = rng.next() % 100; own > 0; --own)
        request.prompt.push_back(static_cast<TokenId>(rng.next() % test::kHashVocab));
      request.strategy = rng.next() % 4 == 0 ? Strategy::kSingle : Strategy::kBalanced;
      answers.push_back(cluster.ask(request));
      requests.push_back(std::move(request));
    }
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(cluster.run_until([&] { return answers[i]->finished || answers[i]->error; }));
      ASSERT_TRUE(answers[i]->finished) << answers[i]->error->message;
      EXPECT_EQ(answers[i]->tokens, expected_tokens(requests[i])) << round;
      EXPECT_EQ(answers[i]->finished->report.attempts, 1u) << "what is sent to a worker has room there";
      cached += answers[i]->finished->report.cached_tokens;
      written += answers[i]->finished->report.cache_write_tokens;
    }
  }
  EXPECT_GT(cached, 2000);
  EXPECT_GT(written, 2000);
}

// Turns of conversations, each behind what was asked and answered before. The answers are the decode worker's, which gives them
// to whoever begins the next turn, and is sent only what it has not.
TEST_P(KeptPages, OfAnswersChangeNoBit) {
  for (const size_t workers : {size_t{1}, size_t{3}}) {
    HashCluster cluster(0);
    for (size_t i = 0; i < workers; ++i) cluster.add(true, /*pages=*/150);
    ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().workers.size() == workers + 1; }));
    SeededRng rng(workers);
    int64_t of_answers = 0;
    std::vector<std::vector<TokenId>> conversations(3);
    for (int turn = 0; turn < 60; ++turn) {
      std::vector<TokenId>& text = conversations[rng.next() % conversations.size()];
      if (text.size() > 1200) text.clear();
      const size_t before = text.size();
      for (uint64_t own = 1 + rng.next() % 150; own > 0; --own)
        text.push_back(static_cast<TokenId>(rng.next() % test::kHashVocab));
      InferenceRequest request{.prompt = text, .max_new_tokens = static_cast<int32_t>(1 + rng.next() % 200)};
      if (rng.next() % 4 == 0) request.strategy = Strategy::kEven;
      const auto answer = cluster.answer_to(request);
      ASSERT_TRUE(answer->finished) << answer->error->message;
      ASSERT_EQ(answer->tokens, expected_tokens(request)) << turn;
      ASSERT_EQ(answer->finished->report.attempts, 1u) << turn;
      const auto cached = static_cast<size_t>(answer->finished->report.cached_tokens);
      ASSERT_LT(cached, text.size());
      of_answers += before > 0 && before - cached < kPageTokens + 1 ? 1 : 0;
      text.insert(text.end(), answer->tokens.begin(), answer->tokens.end());
    }
    EXPECT_GT(of_answers, 5) << "turns began behind the last answer";
    EXPECT_GT(cluster.nodes[0]->pool.usage().kept, 0) << "of the decode worker";
  }
}

// An answer's last token was never an input: a page that ends with it is not full of keys and values.
TEST(KeptPagesOfOne, AnAnswerThatEndsWithAPageIsKeptWithoutIt) {
  HashCluster cluster(1);
  for (const int32_t answer_len : {27, 28, 29}) {
    InferenceRequest request = request_of(100, answer_len, static_cast<uint64_t>(answer_len));
    const auto first = cluster.answer_to(request);
    ASSERT_TRUE(cluster.run_until([&] {
      return std::ranges::all_of(cluster.coordinator->cluster().workers, [](const auto& w) { return w.running == 0; });
    })) << "the decode worker has not said what it keeps";
    request.prompt.insert(request.prompt.end(), first->tokens.begin(), first->tokens.end());
    request.prompt.push_back(1);
    const auto next = cluster.answer_to(request);
    EXPECT_LE(next->finished->report.cached_tokens, answer_len < 29 ? 64 : 128);
    EXPECT_EQ(next->tokens, expected_tokens(request)) << answer_len;
  }
}

// Four choices of 700 tokens, answers of 60: 10 full pages that they share, and 2 pages each; the decode worker has room for no
// more. What is there already is sent to nobody again.
struct Choices {
  Choices() : cluster(1, 0) {
    cluster.add(false, /*pages=*/test::kHashLayers * (10 + 4 * 2));
    EXPECT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().workers.size() == 2; }));
    decode().engine.step_delay = 10ms;
    cluster.nodes[0]->engine.layer_delay = 5ms;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      requests.push_back(request_of(700, 60));
      requests.back().sampling.seed = seed;
    }
  }
  HashCluster::Node& decode() { return *cluster.nodes[1]; }
  bool all_decode() { return decode().pool.usage().free == 0 && decode().engine.largest_batch == 4; }
  void expect_answer(size_t i, const std::shared_ptr<Answer>& answer) {
    ASSERT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
    ASSERT_TRUE(answer->finished) << answer->error->message;
    EXPECT_EQ(answer->tokens, expected_tokens(requests[i])) << i;
    EXPECT_EQ(answer->finished->report.attempts, 1u) << i;
  }
  HashCluster cluster;
  std::vector<InferenceRequest> requests;
};

TEST(KeptPagesOfOne, ChoicesShareThePagesOfTheirPromptWhileTheyAreDecoded) {
  Choices choices;
  std::vector<std::shared_ptr<Answer>> answers;
  for (const InferenceRequest& request : choices.requests) answers.push_back(choices.cluster.ask(request));
  ASSERT_TRUE(choices.cluster.run_until([&] { return choices.all_decode(); }));
  EXPECT_EQ(choices.decode().pool.usage().leased, test::kHashLayers * (10 + 4 * 2));
  for (size_t i = 0; i < answers.size(); ++i) {
    choices.expect_answer(i, answers[i]);
    const uint64_t pages = answers[i]->finished->report.ranks.back().kv_sent_bytes / test::kHashPageBytes;
    EXPECT_EQ(pages, static_cast<uint64_t>(test::kHashLayers) * (i == 0 ? 11 : 1)) << i;
  }
  EXPECT_TRUE(choices.cluster.run_until([&] { return choices.cluster.pages_are_free(); }, 2s));
}

TEST(KeptPagesOfOne, ChoicesGoOnBehindThePagesOfOneThatIsCancelled) {
  Choices choices;
  Result<std::shared_ptr<TokenStream>> first = choices.cluster.coordinator->submit(choices.requests[0]);
  ASSERT_TRUE(first);
  std::vector<std::shared_ptr<Answer>> answers;
  for (size_t i = 1; i < 4; ++i) answers.push_back(choices.cluster.ask(choices.requests[i]));
  ASSERT_TRUE(choices.cluster.run_until([&] { return choices.all_decode(); }));
  (*first)->cancel();
  ASSERT_TRUE(choices.cluster.run_until([&] { return choices.decode().pool.usage().free == 2 * test::kHashLayers; }));
  const auto late = choices.cluster.ask(choices.requests[0]);
  for (size_t i = 1; i < 4; ++i) choices.expect_answer(i, answers[i - 1]);
  choices.expect_answer(0, late);
  EXPECT_TRUE(choices.cluster.run_until([&] { return choices.cluster.pages_are_free(); }, 2s));
}

// A stop string, which only the gateway sees, and a client that stops: the next turn goes on behind what they have got.
TEST(KeptPagesOfOne, AnAnswerThatItsReaderEndsIsKeptAndChangesNoBit) {
  HashCluster cluster(1);
  for (auto& node : cluster.nodes) node->engine.step_delay = 1ms;
  for (const bool cancelled : {false, true}) {
    InferenceRequest request = request_of(100, 1000, cancelled ? 2 : 3);
    Result<std::shared_ptr<TokenStream>> stream = cluster.coordinator->submit(request);
    ASSERT_TRUE(stream);
    auto answer = std::make_shared<Answer>();
    asio::co_spawn(cluster.io, HashCluster::read(*stream, answer, cluster.clock), asio::detached);
    ASSERT_TRUE(cluster.run_until([&] { return answer->tokens.size() >= 200; }));
    if (cancelled) (*stream)->cancel();
    else (*stream)->finish();
    ASSERT_TRUE(cluster.run_until([&] { return answer->finished || answer->error; }));
    ASSERT_TRUE(cluster.run_until([&] {
      return std::ranges::all_of(cluster.coordinator->cluster().workers, [](const auto& w) { return w.running == 0; });
    })) << "the decode worker has not said what it keeps";
    request.prompt.insert(request.prompt.end(), answer->tokens.begin(), answer->tokens.end());
    request.prompt.push_back(1);
    request.max_new_tokens = 5;
    const auto next = cluster.answer_to(request);
    ASSERT_TRUE(next->finished);
    EXPECT_GE(next->finished->report.cached_tokens, 256) << "of 100 and 200";
    EXPECT_EQ(next->tokens, expected_tokens(request));
  }
}

TEST(KeptPagesOfOne, ACoordinatorThatComesBackFindsNothingKept) {
  HashCluster cluster(1);
  const InferenceRequest request = request_of(400, 3);
  EXPECT_EQ(cluster.answer_to(request)->finished->report.cached_tokens, 0);
  EXPECT_EQ(cluster.answer_to(request)->finished->report.cached_tokens, 384);
  EXPECT_GT(cluster.nodes[0]->pool.usage().kept, 0);
  cluster.stop_coordinator();
  ASSERT_TRUE(cluster.run_until([&] { return cluster.nodes[0]->pool.usage().kept == 0; }));
  CoordinatorOptions next;
  next.epoch = 2;
  cluster.coordinator.reset();
  cluster.start_coordinator(next);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.coordinator->cluster().workers.size() == 2; }));
  const auto answer = cluster.answer_to(request);
  ASSERT_TRUE(answer->finished);
  EXPECT_EQ(answer->finished->report.cached_tokens, 0);
  EXPECT_EQ(answer->tokens, expected_tokens(request));
}

}  // namespace
}  // namespace runahead::test
