// The emulation that kernels/cuda is tested with: what it computes, and that it finds the faults that a device would hide.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"

namespace runahead::cuda {
namespace {

using ::testing::HasSubstr;

// What the launch ends with; empty: nothing.
std::string fault_of(const std::function<void()>& kernel, unsigned threads = 64) {
  try {
    simt::launch({1, 1, 1}, threads, kernel);
  } catch (const simt::Fault& fault) {
    return fault.what();
  }
  return "";
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnceAndKnowsItsPlace) {
  std::vector<int> runs(2 * 3 * 4 * 64);
  simt::launch({4, 3, 2}, 64,
               [&] { ++runs[static_cast<size_t>(((block_z() * 3 + block_y()) * 4 + block_x()) * 64 + thread_id())]; });
  EXPECT_EQ(std::ranges::count(runs, 1), static_cast<int64_t>(runs.size()));
}

TEST(Simt, AWarpSumsByShuffles) {
  std::vector<float> sums(64);
  EXPECT_EQ(fault_of([&] { sums[static_cast<size_t>(thread_id())] = warp_sum(static_cast<float>(thread_id())); }), "");
  for (size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(sums[i], i < 32 ? 496 : 1520) << i;
}

TEST(Simt, SharedMemoryIsPassedOnAtABarrier) {
  std::vector<int> seen(64);
  EXPECT_EQ(fault_of([&] {
              SHARED(int, values, 64);
              const int self = thread_id();
              for (int round = 0; round < 3; ++round) {
                values[self] = self * 10 + round;
                BARRIER();
                seen[static_cast<size_t>(self)] = values[63 - self];
                BARRIER();
              }
            }),
            "");
  for (int i = 0; i < 64; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], (63 - i) * 10 + 2);
}

TEST(Simt, AReadThatNoBarrierPutsBehindItsWriteIsARace) {
  EXPECT_THAT(fault_of([] {
                SHARED(int, values, 64);
                values[thread_id()] = 1;
                if (thread_id() == 40) [[maybe_unused]]
                  const int other = values[7];
              }),
              HasSubstr("reads after the write by thread 7 of values[7] without a barrier between"));
}

TEST(Simt, AWriteThatNoBarrierPutsBehindAReadIsARace) {
  EXPECT_THAT(fault_of([] {
                SHARED(int, values, 64);
                values[thread_id()] = 1;
                BARRIER();
                if (thread_id() == 3) [[maybe_unused]]
                  const int other = values[50];
                if (thread_id() == 50) values[50] = 2;
              }),
              HasSubstr("writes after the read by thread 3 of values[50]"));
}

TEST(Simt, TwoWritesOfOneElementAreARace) {
  EXPECT_THAT(fault_of([] {
                SHARED(int, values, 64);
                values[thread_id() / 2] = 1;
              }),
              HasSubstr("writes after the write by thread 0 of values[0]"));
}

TEST(Simt, AWarpsBarrierOrdersItsOwnLanesAlone) {
  const auto reader = [](int thread, int element) {
    return [=] {
      SHARED(int, values, 64);
      values[thread_id()] = 1;
      WARP_BARRIER();
      if (thread_id() == thread) [[maybe_unused]]
        const int other = values[element];
    };
  };
  EXPECT_EQ(fault_of(reader(40, 41)), "");
  EXPECT_THAT(fault_of(reader(40, 7)), HasSubstr("reads after the write by thread 7 of values[7]"));
}

TEST(Simt, WhatNobodyWroteIsNotRead) {
  EXPECT_THAT(fault_of([] {
                SHARED(int, values, 64);
                [[maybe_unused]] const int other = values[5];
              }),
              HasSubstr("reads values[5], which nobody wrote"));
}

TEST(Simt, SharedMemoryHasBounds) {
  EXPECT_THAT(fault_of([] {
                SHARED(int, values, 64);
                values[thread_id() + 1] = 1;
              }),
              HasSubstr("values[64] is beyond the 64 elements"));
}

TEST(Simt, ABarrierThatSomeThreadsNeverReachIsFound) {
  EXPECT_THAT(fault_of([] {
                if (thread_id() < 48) BARRIER();
              }),
              HasSubstr("16 of 64 threads ended without reaching the barrier"));
  EXPECT_THAT(fault_of([] {
                if (thread_id() < 32) {
                  BARRIER();
                } else {
                  BARRIER();
                }
              }),
              HasSubstr("threads wait at different barriers"));
}

TEST(Simt, AnOperationThatNotAllLanesJoinIsFound) {
  EXPECT_THAT(fault_of([] {
                if (thread_id() % 32 != 9) shuffle_xor(1.0f, 1);
              }),
              HasSubstr("not all lanes of a warp joined the operation"));
  EXPECT_THAT(fault_of([] {
                if (thread_id() % 2 == 0) shuffle_xor(1.0f, 1);
                else shuffle_xor(2.0f, 1);
              }),
              HasSubstr("lanes of a warp are at different operations"));
}

TEST(Simt, ACopyIsThereWhenItWasAwaitedAndNotBefore) {
  std::vector<uint16_t> source(8 * 64, 7);
  const auto kernel = [&](bool waits) {
    return [&source, waits] {
      SHARED(uint16_t, tile, 8 * 64);
      copy16_later(tile + 8 * thread_id(), source.data() + 8 * thread_id(), true);
      close_copies();
      close_copies();  // an empty group
      if (waits) await_copies<1>();
      BARRIER();
      if (thread_id() == 0 && tile[8 * 63] != 7) throw simt::Fault("not the source's");
    };
  };
  EXPECT_EQ(fault_of(kernel(true)), "");
  EXPECT_THAT(fault_of(kernel(false)), HasSubstr("uses tile[504], to which a copy is on its way"));
}

TEST(Simt, AProductOfAWarpIsThatOfTheWholeTiles) {
  std::vector<float> a(16 * 16), b(8 * 16), d(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(static_cast<int>(i * 7 % 13) - 6) / 4;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(static_cast<int>(i * 5 % 11) - 5) / 2;
  EXPECT_EQ(fault_of(
                [&] {
                  SHARED(uint16_t, a_tile, 16 * 24);
                  SHARED(uint16_t, b_tile, 8 * 24);  // [columns of B, rows of B]
                  SHARED(uint16_t, b_lying, 16 * 24);  // [rows of B, columns of B]
                  for (int i = thread_id(); i < 256; i += 32)
                    a_tile[i / 16 * 24 + i % 16] = to_bf16(a[static_cast<size_t>(i)]);
                  for (int i = thread_id(); i < 128; i += 32) {
                    b_tile[i / 16 * 24 + i % 16] = to_bf16(b[static_cast<size_t>(i)]);
                    b_lying[i % 16 * 24 + i / 16] = to_bf16(b[static_cast<size_t>(i)]);
                  }
                  BARRIER();
                  uint32_t fa[4], fb[2], fl[2];
                  load_a(fa, a_tile, 0, 0, 24);
                  load_b(fb, b_tile, 0, 0, 24);
                  load_b_as_it_lies(fl, b_lying, 0, 0, 24);
                  if (fb[0] != fl[0] || fb[1] != fl[1]) throw simt::Fault("the two ways to load B differ");
                  float sums[4] = {};
                  multiply_add(sums, fa, fb);
                  for (int i = 0; i < 4; ++i)
                    d[static_cast<size_t>((lane_id() / 4 + i / 2 * 8) * 8 + lane_id() % 4 * 2 + i % 2)] = sums[i];
                },
                32),
            "");
  for (size_t r = 0; r < 16; ++r)
    for (size_t c = 0; c < 8; ++c) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += a[r * 16 + k] * b[c * 16 + k];
      EXPECT_EQ(d[r * 8 + c], sum) << r << " " << c;
    }
}

}  // namespace
}  // namespace runahead::cuda
