// The one number of a process's memory: its parts, what is made smaller to fit, and what is refused.
#include "services/process/memory_sum.h"

#include <gtest/gtest.h>

#include <fstream>

#include "services/gateway/generation_memory.h"

namespace runahead {
namespace {

constexpr uint64_t kMib = 1 << 20;
const ApiLoad kLoad{.program_bytes = 60 * kMib, .context_len = 8192};

uint64_t part(const MemorySum& sum, const std::string& name) {
  for (const MemorySum::Part& one : sum.parts)
    if (one.name == name) return one.bytes;
  ADD_FAILURE() << name;
  return 0;
}

TEST(MemorySum, OfACoordinatorFollowsEveryBound) {
  GatewayOptions options;
  const MemorySum full = coordinator_memory(options, kLoad);
  EXPECT_EQ(part(full, "connections"), limits::kHttpConnectionsMax * limits::kHttpConnectionBytes);
  uint64_t total = 0;
  for (const MemorySum::Part& one : full.parts) total += one.bytes;
  EXPECT_EQ(full.total(), total);
  EXPECT_LT(full.total(), 1024 * kMib) << "the chart's limit";
  options.http.connections_max /= 2;
  options.http.bodies_bytes_max += kMib;
  options.http.answers_bytes_max += 2 * kMib;
  options.generation_bytes_max += 4 * kMib;
  const MemorySum other = coordinator_memory(options, kLoad);
  EXPECT_EQ(other.total() + part(full, "connections") / 2, full.total() + 7 * kMib);
  EXPECT_GT(coordinator_memory(options, {.program_bytes = 0, .context_len = 131072, .upload_bytes = 60 * kMib}).total(),
            coordinator_memory(options, {.program_bytes = 0, .context_len = 8192}).total() + 44 * kMib);
  EXPECT_TRUE(to_text(full).starts_with(to_text_bytes(full.total()) + ": program 60 MiB, connections "))
      << to_text(full);
}

TEST(MemorySum, WhereMemoryIsShortAllBoundsShrinkTogetherAndTheSumFits) {
  for (const uint64_t mib : {4096, 1024, 900, 700, 600, 512}) {
    GatewayOptions options;
    const auto sum = fit_coordinator(options, kLoad, {mib * kMib, "cgroup /a memory.max"});
    ASSERT_TRUE(sum) << mib << ": " << sum.error().message;
    EXPECT_LE(sum->total(), mib * kMib);
    EXPECT_EQ(sum->total(), coordinator_memory(options, kLoad).total()) << "what is said is what is held";
    EXPECT_GE(options.http.bodies_bytes_max, limits::kJsonBodyBytesMax) << "a body of the largest size can come";
    EXPECT_GE(options.http.answers_bytes_max, limits::kApiPoolBytesLeast);
    EXPECT_EQ(options.http.connections_max == limits::kHttpConnectionsMax, mib >= 1024) << mib;
    EXPECT_GE(options.http.connections_max, limits::kHttpConnectionsMax / 8);
  }
  GatewayOptions small;
  small.http.bodies_bytes_max = kMib;
  ASSERT_TRUE(fit_coordinator(small, kLoad, {4096 * kMib, "host"}));
  EXPECT_EQ(small.http.bodies_bytes_max, kMib) << "nothing is made larger than it was said to be";
}

TEST(MemorySum, ACoordinatorThatFitsNowhereIsRefusedWithWhatWouldDo) {
  GatewayOptions options;
  const auto sum = fit_coordinator(options, kLoad, {300 * kMib, "RLIMIT_AS"});
  ASSERT_FALSE(sum);
  EXPECT_EQ(sum.error().code, ErrorCode::kInvalidConfig);
  EXPECT_TRUE(sum.error().message.starts_with("RLIMIT_AS allows 300 MiB, and a coordinator may need "))
      << sum.error().message;
  const size_t at = sum.error().message.find("need ") + 5;
  GatewayOptions again;
  const uint64_t enough = (std::stoull(sum.error().message.substr(at)) + 1) * kMib;
  EXPECT_TRUE(fit_coordinator(again, kLoad, {enough, "RLIMIT_AS"})) << sum.error().message;
}

TEST(MemorySum, TheBudgetIsTheLeastOfHostGroupAndProcess) {
  using Scope = MemoryBound::Scope;
  MachineLimits machine{.memory = {{Scope::kHost, "host", 8192 * kMib, 8000 * kMib},
                                   {Scope::kGroup, "cgroup /a memory.max", 1024 * kMib, 500 * kMib}},
                        .cpus = {}};
  EXPECT_EQ(memory_budget(machine, 60 * kMib).bytes, 1024 * kMib) << "what others use there comes and goes";
  machine.memory.push_back({Scope::kProcess, "RLIMIT_AS", 1000 * kMib, 300 * kMib});
  const MemoryBudget least = memory_budget(machine, 60 * kMib);
  EXPECT_EQ(least.bytes, 760 * kMib) << "the program is counted there already";
  EXPECT_EQ(least.by, "RLIMIT_AS");
}

TEST(MemorySum, APoolThatDoesNotFitIsRefusedWithOneThatWould) {
  WorkerLoad load{
      .program_bytes = 50 * kMib, .weights_bytes = 100 * kMib, .pool_bytes = 400 * kMib, .work_bytes = 900 * kMib};
  const MemoryBudget budget{512 * kMib, "cgroup /a memory.max"};
  const auto refused = fit_worker(load, budget);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "kv-memory-mib");
  EXPECT_NE(refused.error().message.find("--kv-memory-mib 362 would fit"), std::string::npos)
      << refused.error().message;
  load.pool_bytes = 362 * kMib;
  const auto fits = fit_worker(load, budget);
  ASSERT_TRUE(fits);
  EXPECT_EQ(fits->total(), 1412 * kMib) << "what work may come to is said, though it is more";
  load.weights_bytes = 600 * kMib;
  EXPECT_NE(fit_worker(load, budget).error().message.find("no K/V page would fit"), std::string::npos);
}

TEST(MemorySum, WhatIsHeldIsMeasured) {
  const uint64_t before = held_bytes();
  EXPECT_GT(before, kMib);
  std::vector<char> touched(64 * kMib, 'x');
  EXPECT_GE(held_bytes(), before + 63 * kMib);
  EXPECT_EQ(touched.back(), 'x');
}

TEST(GenerationMemory, RoomIsTakenBeforeAndGivenBackAfter) {
  GenerationMemory memory(1 << 20);
  InferenceRequest request;
  request.prompt.resize(8'000);
  request.max_new_tokens = 6'000;
  const std::span one(&request, 1);
  {
    const auto first = memory.take(one, false);
    ASSERT_TRUE(first);
    const size_t bytes = memory.used_bytes();
    EXPECT_GE(bytes, 8'000u * 20 + 6'000u * 40);
    const auto second = memory.take(one, false);
    ASSERT_TRUE(second);
    EXPECT_EQ(memory.used_bytes(), 2 * bytes);
    EXPECT_EQ(memory.take(one, false).error().code, ErrorCode::kOverloaded);
  }
  EXPECT_EQ(memory.used_bytes(), 0u);
  const std::vector<InferenceRequest> choices(3, request);
  EXPECT_EQ(memory.take(choices, false).error().code, ErrorCode::kTooLarge) << "it would never find room";
}

TEST(GenerationMemory, WhatIsReadAsItIsMadeIsNotKept) {
  GenerationMemory memory(64 << 20);
  InferenceRequest request;
  request.prompt.resize(10);
  request.max_new_tokens = 1'000'000'000;
  const auto bytes = [&](bool streamed) {
    const auto hold = memory.take(std::span(&request, 1), streamed);
    EXPECT_TRUE(hold);
    return memory.used_bytes();
  };
  EXPECT_LT(bytes(true), 10u << 20) << "more tokens than a deadline allows are not counted";
  EXPECT_GT(bytes(false), 40u << 20);
  request.max_new_tokens = 4'000;
  const size_t plain = bytes(true);
  request.sampling.top_logprobs = 20;
  EXPECT_GE(bytes(true), plain + 4'000 * 21 * 8) << "alternatives count";
}

}  // namespace
}  // namespace runahead
