#include "planner/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "small_model.h"

namespace runahead {
namespace {

// The seconds of a chunk on a worker whose truth is `speed`, with relative noise.
double measured(const ModelCost& model, const WorkerSpeed& speed, TokenRange chunk, bool last, SeededRng& rng,
                double noise) {
  const double factor = 1 + noise * (2 * static_cast<double>(rng.next() >> 11) * 0x1.0p-53 - 1);
  return compute_seconds(speed, chunk_work(model, chunk, last)) * factor;
}

TEST(Profile, BeforeTheFirstMeasurementSpeedsAreTheDefaults) {
  const ModelCost model = small_model();
  const WorkerEstimate worker(model, default_speed(model));
  EXPECT_GT(worker.speed().seconds_per_token, 0);
  EXPECT_DOUBLE_EQ(worker.speed().seconds_per_token, default_speed(model).seconds_per_token);
  EXPECT_DOUBLE_EQ(worker.speed().seconds_per_pair, default_speed(model).seconds_per_pair);
  EXPECT_DOUBLE_EQ(LinkEstimate().speed().bytes_per_second, default_link().bytes_per_second);
}

TEST(Profile, FindsTheTruthFromNoisyChunks) {
  const ModelCost model = small_model();
  SeededRng rng(1);
  for (const WorkerSpeed truth : {WorkerSpeed{2e-3, 3e-7}, WorkerSpeed{1e-5, 1e-9}, WorkerSpeed{1e-4, 1e-7}}) {
    WorkerEstimate worker(model, default_speed(model));
    for (int i = 0; i < 60; ++i) {
      const auto begin = static_cast<int32_t>(rng.next() % 100) * 64;
      const auto size = static_cast<int32_t>(64 + rng.next() % 4000);
      const bool last = i % 2 == 0;
      worker.add_chunk({begin, begin + size}, last, measured(model, truth, {begin, begin + size}, last, rng, 0.03));
    }
    EXPECT_NEAR(worker.speed().seconds_per_token / truth.seconds_per_token, 1, 0.05);
    EXPECT_NEAR(worker.speed().seconds_per_pair / truth.seconds_per_pair, 1, 0.15);
  }
}

TEST(Profile, OneSampleAlreadyTellsTheScale) {
  const ModelCost model = small_model();
  SeededRng rng(1);
  const WorkerSpeed truth{default_speed(model).seconds_per_token * 7, default_speed(model).seconds_per_pair * 7};
  WorkerEstimate worker(model, default_speed(model));
  worker.add_chunk({0, 2048}, true, measured(model, truth, {0, 2048}, true, rng, 0));
  EXPECT_NEAR(worker.speed().seconds_per_token / truth.seconds_per_token, 1, 0.01);
  EXPECT_NEAR(worker.speed().seconds_per_pair / truth.seconds_per_pair, 1, 0.01);
}

TEST(Profile, SamplesThatAllLookAlikePredictThemselves) {
  const ModelCost model = small_model();
  SeededRng rng(2);
  const WorkerSpeed truth{5e-4, 1e-8};
  WorkerEstimate worker(model, default_speed(model));
  for (int i = 0; i < 200; ++i)
    worker.add_chunk({1024, 2048}, false, measured(model, truth, {1024, 2048}, false, rng, 0.05));
  const Work work = chunk_work(model, {1024, 2048}, false);
  EXPECT_NEAR(compute_seconds(worker.speed(), work) / compute_seconds(truth, work), 1, 0.03);
  EXPECT_GT(worker.speed().seconds_per_token, 0);
  EXPECT_GT(worker.speed().seconds_per_pair, 0);
}

TEST(Profile, FollowsAWorkerThatSlowsDown) {
  const ModelCost model = small_model();
  SeededRng rng(3);
  const WorkerSpeed fast{1e-4, 2e-8}, slow{2e-4, 4e-8};
  WorkerEstimate worker(model, default_speed(model));
  for (int i = 0; i < 100; ++i)
    worker.add_chunk({0, 64 * (1 + i % 50)}, false, measured(model, fast, {0, 64 * (1 + i % 50)}, false, rng, 0.02));
  for (int i = 0; i < 40; ++i)
    worker.add_chunk({0, 64 * (1 + i % 50)}, false, measured(model, slow, {0, 64 * (1 + i % 50)}, false, rng, 0.02));
  const Work work = chunk_work(model, {0, 2048}, false);
  EXPECT_NEAR(compute_seconds(worker.speed(), work) / compute_seconds(slow, work), 1, 0.1);
}

// A chunk behind a prefix, as rank 1 of a chain sees it.
constexpr TokenRange kChunk{1024, 2048};

double predicted(const ModelCost& model, const WorkerEstimate& worker, TokenRange chunk) {
  return compute_seconds(worker.speed(), chunk_work(model, chunk, false));
}

TEST(Profile, AStartUpFigureFromABusyMachineWeighsNothingBesideARequest) {
  const ModelCost model = small_model();
  SeededRng rng(5);
  const WorkerSpeed truth{5e-4, 1e-8}, busy{5e-4 * 9, 1e-8 * 9};
  WorkerEstimate worker(model, busy);
  worker.add_chunk(kChunk, false, measured(model, truth, kChunk, false, rng, 0));
  EXPECT_NEAR(predicted(model, worker, kChunk) / measured(model, truth, kChunk, false, rng, 0), 1, 0.01);
  const TokenRange other{0, 4096};
  EXPECT_NEAR(predicted(model, worker, other) / measured(model, truth, other, false, rng, 0), 1, 0.01);
}

TEST(Profile, OneOutlierDoesNotMoveItAndTwoThatAgreeDo) {
  const ModelCost model = small_model();
  for (const double factor : {4.0, 0.25, 30.0}) {
    SeededRng rng(6);
    const WorkerSpeed truth{5e-4, 1e-8}, changed{5e-4 * factor, 1e-8 * factor};
    WorkerEstimate worker(model, default_speed(model));
    for (int i = 0; i < 10; ++i)
      worker.add_chunk({64 * i, 1024}, false, measured(model, truth, {64 * i, 1024}, false, rng, 0.03));
    const double before = predicted(model, worker, kChunk);
    worker.add_chunk(kChunk, false, measured(model, changed, kChunk, false, rng, 0.03));
    EXPECT_NEAR(predicted(model, worker, kChunk) / before, 1, 0.02) << factor;
    worker.add_chunk(kChunk, false, measured(model, truth, kChunk, false, rng, 0.03));
    EXPECT_NEAR(predicted(model, worker, kChunk) / measured(model, truth, kChunk, false, rng, 0), 1, 0.05);
    for (int i = 0; i < 2; ++i)
      worker.add_chunk({64 * i, 640}, false, measured(model, changed, {64 * i, 640}, false, rng, 0.03));
    EXPECT_NEAR(predicted(model, worker, kChunk) / measured(model, changed, kChunk, false, rng, 0), 1, 0.1)
        << "of other lengths too: " << factor;
  }
}

TEST(Profile, AWorkerAtSixTenthsOfItsSpeedIsKnownByItsNextRequest) {
  const ModelCost model = small_model();
  SeededRng rng(7);
  const WorkerSpeed truth{5e-4, 1e-8}, slow{5e-4 / 0.6, 1e-8 / 0.6};
  WorkerEstimate worker(model, default_speed(model));
  for (int i = 0; i < 10; ++i) worker.add_chunk(kChunk, false, measured(model, truth, kChunk, false, rng, 0.05));
  worker.add_chunk(kChunk, false, measured(model, slow, kChunk, false, rng, 0.05));
  EXPECT_NEAR(predicted(model, worker, kChunk) / measured(model, slow, kChunk, false, rng, 0), 1, 0.1);
}

TEST(Profile, FindsWhatAChunkAndAPrefixCostBesideTokensAndPairs) {
  const ModelCost model = small_model();
  SeededRng rng(8);
  const WorkerSpeed truth{5e-4, 1e-8, 0.08, 2e-5};
  WorkerEstimate worker(model, default_speed(model));
  const auto some_chunk = [&] {
    const auto begin = static_cast<int32_t>(rng.next() % 100) * 64;
    return TokenRange{begin, begin + 64 * static_cast<int32_t>(1 + rng.next() % 30)};
  };
  for (int i = 0; i < 60; ++i) {
    const TokenRange chunk = some_chunk();
    worker.add_chunk(chunk, false, measured(model, truth, chunk, false, rng, 0.03));
  }
  for (int i = 0; i < 200; ++i) {
    const TokenRange chunk = some_chunk();
    EXPECT_NEAR(predicted(model, worker, chunk) / measured(model, truth, chunk, false, rng, 0), 1, 0.05);
  }
  EXPECT_NEAR(worker.speed().seconds_per_chunk / truth.seconds_per_chunk, 1, 0.25);
}

// A rank of a chain sees chunks of nearly one length behind nearly one prefix: their noise is no law.
TEST(Profile, NoiseOfChunksThatLookAlikeDoesNotMakeOthersStrange) {
  const ModelCost model = small_model();
  const WorkerSpeed truth = default_speed(model);
  const TokenRange other{0, 512};
  std::vector<double> errors;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SeededRng rng(seed);
    WorkerEstimate worker(model, truth);
    for (int i = 0; i < 8; ++i) {
      const TokenRange chunk{1024 + 64 * (i % 3), 2048 + 64 * (i % 2)};
      worker.add_chunk(chunk, false, measured(model, truth, chunk, false, rng, 0.12));
    }
    errors.push_back(std::abs(predicted(model, worker, other) / measured(model, truth, other, false, rng, 0) - 1));
  }
  std::ranges::sort(errors);
  EXPECT_LT(errors[50], 0.15);
  EXPECT_LT(errors[95], 0.4);
}

TEST(Profile, NeverNegativeWhateverTheSamples) {
  const ModelCost model = small_model();
  SeededRng rng(4);
  WorkerEstimate worker(model, default_speed(model));
  LinkEstimate link;
  for (int i = 0; i < 2000; ++i) {
    const auto begin = static_cast<int32_t>(rng.next() % 100) * 64;
    worker.add_chunk({begin, begin + 1 + static_cast<int32_t>(rng.next() % 5000)}, false,
                     1e-6 * static_cast<double>(1 + rng.next() % 10000000));
    link.add_transfer(static_cast<double>(1 + rng.next() % 100000000),
                      1e-6 * static_cast<double>(1 + rng.next() % 1000000));
    ASSERT_GT(worker.speed().seconds_per_token, 0);
    ASSERT_GT(worker.speed().seconds_per_pair, 0);
    ASSERT_GT(link.speed().bytes_per_second, 0);
    ASSERT_GT(link.speed().latency_seconds, 0);
  }
  const auto before = worker.samples();
  worker.add_chunk({0, 64}, false, 0);
  worker.add_chunk({0, 0}, false, 1);
  EXPECT_EQ(worker.samples(), before) << "samples that mean nothing are ignored";
}

// Each rank of a chain sees chunks of one kind: rank 0 long ones without a prefix, the last one short ones behind a long one.
// Alone none of them can tell what another chunk would take; together they can.
TEST(DeviceEstimate, RanksThatSeeOneKindOfChunkEachKnowAllKindsTogether) {
  const ModelCost model = small_model();
  const WorkerSpeed truth{3e-3, 1.1e-6, 0.02, 1e-5};
  const WorkerSpeed expected{1.5e-3, 1.5e-6};  // wrong in scale and shape
  const TokenRange chunks[] = {{0, 1408}, {1408, 2432}, {2432, 3328}, {3328, 4096}};
  for (const double slow : {1.0, 1 / 0.6}) {
    SeededRng rng(5);
    DeviceEstimate device(model, expected);
    std::vector<WorkerEstimate> workers(4, WorkerEstimate(model, expected));
    const auto nobody_knows = [](uint64_t) { return 1.0; };
    const auto speed_of = [&](size_t w) { return w == 2 ? scaled(truth, slow) : truth; };
    for (int round = 0; round < 8; ++round)
      for (size_t w = 0; w < 4; ++w) {
        const bool last = w == 3;
        workers[w].add_chunk(chunks[w], last, measured(model, speed_of(w), chunks[w], last, rng, 0.04));
        device.add_chunk(w, workers[w], chunks[w], last);
      }
    double worst = 0, worst_alone = 0;
    for (size_t w = 0; w < 4; ++w)
      for (const TokenRange& chunk : {TokenRange{0, 4096}, {0, 1024}, {3072, 4096}}) {
        const Work work = chunk_work(model, chunk, true);
        const double right = compute_seconds(speed_of(w), work);
        worst = std::max(worst, std::abs(compute_seconds(device.speed_of(w, nobody_knows), work) / right - 1));
        worst_alone = std::max(worst_alone, std::abs(compute_seconds(workers[w].speed(), work) / right - 1));
      }
    EXPECT_LT(worst, slow > 1 ? 0.13 : 0.08) << "one of four " << slow << " times as slow; 0.6 is taken for 0.62";
    EXPECT_GT(worst_alone, 0.15);
    EXPECT_NEAR(device.speed_of(9, nobody_knows).seconds_per_token / truth.seconds_per_token, 1, 0.25) << "a newcomer";
    device.remove(2);
    EXPECT_FALSE(device.is_empty());
  }
}

// A machine that is slower than in earlier days: one worker has shown it, of the others it is only remembered who was slower.
TEST(DeviceEstimate, WhatIsRememberedSaysWhoIsSlowerAndNotHowFastTheyAre) {
  const ModelCost model = small_model();
  const WorkerSpeed remembered{1e-3, 1e-7}, today = scaled(remembered, 1.4);
  const auto was_slower = [](uint64_t worker) { return worker == 2 ? 1 / 0.6 : 1.0; };
  for (const uint64_t first : {uint64_t{0}, uint64_t{2}}) {
    DeviceEstimate device(model, remembered);
    WorkerEstimate own(model, remembered);
    const TokenRange chunk{0, 2048};
    own.add_chunk(chunk, true, compute_seconds(scaled(today, was_slower(first)), chunk_work(model, chunk, true)));
    device.add_chunk(first, own, chunk, true);
    EXPECT_NEAR(device.speed_of(1, was_slower).seconds_per_token / today.seconds_per_token, 1, 0.03)
        << "like the others";
    EXPECT_NEAR(device.speed_of(2, was_slower).seconds_per_token / today.seconds_per_token, 1 / 0.6, 0.06) << first;
  }
}

TEST(ChainStretch, IsTheMedianOfTheLastPromptsOverAboutAsManyRanks) {
  ChainStretch stretch;
  EXPECT_EQ(stretch.of(4), 1);
  for (const double seconds : {10.8, 11.0, 30.0}) stretch.add(4, 10, seconds);  // one of them met something else
  EXPECT_NEAR(stretch.of(4), 1.1, 1e-9);
  EXPECT_NEAR(stretch.of(3), 1.1, 1e-9);
  EXPECT_EQ(stretch.of(2), 1) << "fewer ranks lose less";
  EXPECT_NEAR(stretch.of(64), 1.1, 1e-9) << "more ranks lose no less";
  stretch.add(1, 10, 10.2);
  EXPECT_NEAR(stretch.of(2), 1.02, 1e-9);
  for (int i = 0; i < 4; ++i) stretch.add(4, 10, 10);
  EXPECT_NEAR(stretch.of(4), 1, 1e-9) << "what was is forgotten";
  for (const double odd : {0.0, -1.0, 1e300, std::numeric_limits<double>::quiet_NaN()}) stretch.add(4, odd, odd);
  EXPECT_NEAR(stretch.of(4), 1, 1e-9);
  for (int i = 0; i < 9; ++i) stretch.add(8, 1, 1000);
  EXPECT_NEAR(stretch.of(8), 1.5, 1e-9) << "noise is never so much";
}

TEST(Profile, ALinkThatTurnsSlowKeepsItsLatency) {
  LinkEstimate link;
  for (const double rate : {4e8, 1e7}) {
    for (const double bytes : {2e7, 1e8, 5e7, 3e7}) link.add_transfer(bytes, bytes / rate);
    EXPECT_NEAR(link.speed().bytes_per_second / rate, 1, 0.03);
    EXPECT_EQ(link.speed().latency_seconds, default_link().latency_seconds);
  }
}

}  // namespace
}  // namespace runahead
