// Which speeds plans reckon with: what workers measured at their start, and what requests taught.
#include <algorithm>
#include <map>

#include "core_driver.h"
#include "planner/chain_timeline.h"

namespace runahead::test {
namespace {

using Kind = proto::Envelope::BodyCase;

constexpr int32_t kPrompt = 3840;
constexpr double kSecondsPerToken = 1e-3;

class Workers : public CoreDriver {
 public:
  // One prefill worker for each start-up figure, of devices[i], and a decode worker.
  explicit Workers(const std::vector<double>& seconds_per_token, const std::vector<std::string>& devices = {},
                   const SpeedMemory& memory = {})
      : CoreDriver({}, {}, memory), count_(std::ssize(seconds_per_token)) {
    for (int64_t i = 0; i < count_; ++i) {
      proto::Envelope message = hello(true, static_cast<uint64_t>(i) + 1);
      message.mutable_hello()->set_seconds_per_token(seconds_per_token[static_cast<size_t>(i)]);
      message.mutable_hello()->set_seconds_per_pair(1e-9);
      message.mutable_hello()->set_device(devices.empty() ? "cpu" : devices[static_cast<size_t>(i)]);
      join(static_cast<PeerId>(i) + 1, message);
    }
    join(99, false);
  }

  // Begins a request, and says how many tokens each worker was given.
  std::vector<int32_t> shares(Strategy strategy = InferenceRequest().strategy) {
    InferenceRequest request{.prompt = std::vector<TokenId>(kPrompt, 7), .max_new_tokens = 1};
    request.strategy = strategy;
    id_ = *submit(request);
    std::vector<int32_t> tokens;
    for (int64_t i = 1; i <= count_; ++i) {
      const auto* step = last(static_cast<PeerId>(i), Kind::kRunChainStep);
      tokens.push_back(step != nullptr && step->request() == id_
                           ? static_cast<int32_t>(step->run_chain_step().end() - step->run_chain_step().begin())
                           : 0);
    }
    return tokens;
  }
  // Ends it: worker i took seconds_per_token[i] for each of its tokens, and the first token came after `ttft`.
  void serve(const std::vector<double>& seconds_per_token, Duration ttft = {}) {
    now += ttft;
    for (int64_t i = 1; i <= count_; ++i) {
      const auto* step = last(static_cast<PeerId>(i), Kind::kRunChainStep);
      if (step == nullptr || step->request() != id_) continue;
      const proto::RunChainStep& chunk = step->run_chain_step();
      proto::Envelope done = rank_done(id_, 1, chunk.rank());
      done.mutable_rank_done()->mutable_timing()->set_compute_seconds(seconds_per_token[static_cast<size_t>(i) - 1] *
                                                                      static_cast<double>(chunk.end() - chunk.begin()));
      say_wire_time(chunk, *done.mutable_rank_done()->mutable_timing());
      if (chunk.end() == kPrompt) from(static_cast<PeerId>(i), first_token(id_, 1, 5));
      from(static_cast<PeerId>(i), done);
    }
    from(99, decode_done(id_, 1));
    EXPECT_TRUE(finished.contains(id_));
  }
  // Ends it as the timeline says of workers and links that are really so.
  void serve_by_the_timeline(const std::vector<double>& seconds_per_token) {
    std::map<int32_t, size_t> order;  // which worker has the chunk that begins there
    Partition chunks;
    for (int64_t i = 1; i <= count_; ++i) {
      const auto* step = last(static_cast<PeerId>(i), Kind::kRunChainStep);
      if (step == nullptr || step->request() != id_) continue;
      const proto::RunChainStep& chunk = step->run_chain_step();
      chunks.push_back({static_cast<int32_t>(chunk.begin()), static_cast<int32_t>(chunk.end())});
      order[chunks.back().begin] = static_cast<size_t>(i) - 1;
    }
    std::ranges::sort(chunks, {}, &TokenRange::begin);
    std::vector<WorkerProfile> chain;
    for (const auto& [begin, worker] : order)
      chain.push_back(
          {.speed = {.seconds_per_token = seconds_per_token[worker]}, .ingress = {.bytes_per_second = links_[worker]}});
    const ChainTimeline timeline = chain_timeline(model_cost(shape(), kPageBytes), chain, chunks);
    std::vector<double> took(seconds_per_token.size());  // seconds of a worker for each token of its chunk
    for (size_t rank = 0; rank < chunks.size(); ++rank)
      took[order[chunks[rank].begin]] = timeline.ranks[rank].compute_seconds / chunks[rank].size();
    serve(took, from_seconds(timeline.ttft_seconds));
  }
  // From now on K/V reaches worker i at bytes_per_second[i].
  void connect(std::vector<double> bytes_per_second) { links_ = std::move(bytes_per_second); }
  // Three requests at these speeds.
  void learn(const std::vector<double>& seconds_per_token) {
    for (int i = 0; i < 3; ++i) {
      shares();
      serve(seconds_per_token);
    }
  }

 private:
  void say_wire_time(const proto::RunChainStep& chunk, proto::RankTiming& timing) {
    if (links_.empty() || chunk.end() == kPrompt) return;
    const auto receiver = static_cast<size_t>(std::stoi(chunk.downstream().kv_address().substr(3))) - 1;  // "kv-3"
    timing.set_kv_sent_bytes(1'000'000);
    timing.set_kv_wire_seconds(1e6 / links_[receiver]);
  }

  int64_t count_;
  RequestId id_ = 0;
  std::vector<double> links_;
};

// Seconds of the worker that is done last.
double slowest(const std::vector<int32_t>& tokens, const std::vector<double>& seconds_per_token) {
  double most = 0;
  for (size_t i = 0; i < tokens.size(); ++i) most = std::max(most, tokens[i] * seconds_per_token[i]);
  return most;
}

TEST(WorkerSpeeds, EqualWorkersThatMeasuredByChanceAreEqual) {
  Workers workers({1e-3, 3e-3, 2e-3, 1.2e-3});
  const std::vector<int32_t> tokens = workers.shares();
  const auto [least, most] = std::ranges::minmax(tokens);
  EXPECT_GE(least, 0.9 * most);
}

TEST(WorkerSpeeds, UnlikeDevicesAreWhatTheyMeasured) {
  Workers workers({1e-3, 3e-3}, {"cpu fast", "cpu slow"});
  const std::vector<int32_t> tokens = workers.shares();
  EXPECT_NEAR(static_cast<double>(tokens[0]) / tokens[1], 3, 0.4);
}

TEST(WorkerSpeeds, NoiseBetweenEqualWorkersMovesNoCuts) {
  Workers workers(std::vector<double>(4, kSecondsPerToken));
  workers.learn({1.08e-3, 0.93e-3, 1.04e-3, 0.95e-3});
  const std::vector<int32_t> tokens = workers.shares();
  const auto [least, most] = std::ranges::minmax(tokens);
  EXPECT_GE(least, most - kPageTokens) << "as they differ, shares would be 16 % apart";
}

// Of one in four that turns slower: the plan after the request that showed it, against one that always knew.
TEST(WorkerSpeeds, AWorkerThatTurnsSlowerIsPlannedForAfterOneRequest) {
  Workers workers(std::vector<double>(4, kSecondsPerToken));
  std::vector<double> speeds(4, kSecondsPerToken);
  workers.learn(speeds);
  speeds[2] = kSecondsPerToken / 0.6;
  workers.shares();
  workers.serve(speeds);
  EXPECT_LT(slowest(workers.shares(), speeds), 1.1 * kPrompt * kSecondsPerToken / 3.6) << "W / sum of rates";
}

TEST(WorkerSpeeds, AFourfoldChangeIsPlannedForAfterTwoRequests) {
  Workers workers(std::vector<double>(4, kSecondsPerToken));
  std::vector<double> speeds(4, kSecondsPerToken);
  workers.learn(speeds);
  const std::vector<int32_t> equal = workers.shares();
  speeds[1] = 4 * kSecondsPerToken;
  workers.serve(speeds);
  EXPECT_EQ(workers.shares(), equal) << "one may be a hiccup";
  workers.serve(speeds);
  EXPECT_LT(slowest(workers.shares(), speeds), 1.1 * kPrompt * kSecondsPerToken / 3.25) << "W / sum of rates";
}

// Ranks stutter and wait for each other: more than their timeline says, and the next prediction knows it.
TEST(WorkerSpeeds, WhatAChainLosesBetweenItsRanksIsPredictedAfterOneRequest) {
  Workers workers(std::vector<double>(4, kSecondsPerToken));
  const std::vector<double> speeds(4, kSecondsPerToken);
  workers.learn(speeds);
  workers.shares();
  workers.serve(speeds, 1s);
  const double ideal = workers.sink.ttft.back().predicted_ttft_seconds;
  const Duration took = from_seconds(1.2 * ideal);
  for (int i = 0; i < 2; ++i) {
    workers.shares();
    workers.serve(speeds, took);
  }
  workers.shares();
  workers.serve(speeds, took);
  EXPECT_NEAR(workers.sink.ttft.back().predicted_ttft_seconds, seconds(took), 0.02 * seconds(took));
}

// What a link costs is the link's: it is no loss that every chain has.
TEST(WorkerSpeeds, LinksThatTurnSlowArePredictedAtTheThirdRequest) {
  Workers workers(std::vector<double>(2, kSecondsPerToken));
  const std::vector<double> speeds(2, kSecondsPerToken);
  const auto request = [&] {
    workers.shares(Strategy::kEven);  // whatever the links are
    workers.serve_by_the_timeline(speeds);
    const auto& last = workers.sink.ttft.back();
    return last.predicted_ttft_seconds / last.ttft_seconds;
  };
  workers.connect({4e4, 4e4});
  request();
  EXPECT_NEAR(request(), 1, 0.05);
  workers.connect({4e3, 4e3});
  EXPECT_LT(request(), 0.95) << "they were not slow before";
  request();
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(request(), 1, 0.05) << i;
}

// Two links that other traffic slows down for a while: their workers are left out, and come back when that is long ago.
TEST(WorkerSpeeds, ALinkThatWasSlowOnceIsTriedAgain) {
  Workers workers(std::vector<double>(4, kSecondsPerToken));
  const std::vector<double> speeds(4, kSecondsPerToken);
  workers.connect({1e8, 1e8, 1e8, 1e8});
  workers.learn(speeds);
  const auto at_work = [&] {
    return std::ranges::count_if(workers.shares(), [](int32_t tokens) { return tokens > 0; });
  };
  workers.connect({1e8, 1e8, 2, 2});
  EXPECT_EQ(at_work(), 4);
  workers.serve(speeds);
  for (int i = 0; i < 3; ++i) {
    at_work();
    workers.serve(speeds);
  }
  EXPECT_LT(at_work(), 4) << "one of the two may come first, where nothing is received";
  workers.serve(speeds);
  workers.connect({1e8, 1e8, 1e8, 1e8});
  int requests = 0;
  for (bool back = false; !back && requests < 400; ++requests) {
    back = at_work() == 4;
    workers.serve(speeds);
  }
  EXPECT_GT(requests, 20);
  EXPECT_LT(requests, 400);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(at_work(), 4) << "and stay";
    workers.serve(speeds);
  }
}

// A worker that comes back under its name is as fast as it was, also for the next coordinator.
TEST(WorkerSpeeds, AreRememberedOfWorkersThatComeBack) {
  const std::vector<double> speeds = {kSecondsPerToken, 3 * kSecondsPerToken};
  Workers first({kSecondsPerToken, kSecondsPerToken});
  first.learn(speeds);
  const std::vector<int32_t> known = first.shares();
  EXPECT_NEAR(static_cast<double>(known[0]) / known[1], 3, 0.5);
  const SpeedMemory memory = first.core.speeds();
  ASSERT_EQ(memory.size(), 2u) << "nothing of the decode worker is measured";
  const auto seconds_per_token = [&](const LearntSpeeds& learnt, TokenRange chunk) {
    const WorkerSpeed& speed = learnt.speed;
    return speed.seconds_per_token + speed.seconds_per_pair * (chunk.begin + chunk.size() / 2.0) +
           (speed.seconds_per_chunk + speed.seconds_per_prefix_token * chunk.begin) / chunk.size();
  };
  EXPECT_NEAR(seconds_per_token(memory.rbegin()->second, {known[0], kPrompt}) /
                  seconds_per_token(memory.begin()->second, {0, known[0]}),
              3, 0.35)
      << "of what they have done";

  first.core.on_disconnected(2, first.now);
  EXPECT_EQ(first.core.speeds().size(), 2u) << "of one that has gone, too";

  Workers second({kSecondsPerToken, kSecondsPerToken}, {}, memory);
  EXPECT_EQ(second.shares(), known);
}

// A hundred greetings do not say how long a document takes.
TEST(WorkerSpeeds, PromptsOfLessThanAPageTeachNothing) {
  Workers driver({kSecondsPerToken});
  (void)driver.shares();
  driver.serve({kSecondsPerToken});
  const double before = driver.core.view(driver.now).workers.front().tokens_per_second;
  for (int round = 0; round < 100; ++round) {
    const RequestId id = *driver.submit(1 + round % 20, 1);
    proto::Envelope done = CoreDriver::rank_done(id, 1, 0);
    done.mutable_rank_done()->mutable_timing()->set_compute_seconds(1e-6);
    driver.from(1, CoreDriver::first_token(id, 1, 5));
    driver.from(1, done);
    driver.from(99, CoreDriver::decode_done(id, 1));
  }
  EXPECT_NEAR(driver.core.view(driver.now).workers.front().tokens_per_second, before, 0.1 * before);
}

}  // namespace
}  // namespace runahead::test
