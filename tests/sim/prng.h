// Prng: SplitMix64, the one source of chance in the simulation. Never std::random_device, never a standard
// distribution: their results differ between libraries, and a seed must replay everywhere.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>

#include "base/clock.h"
#include "base/rng.h"

namespace runahead::test {

class Prng final : public Rng {
 public:
  explicit Prng(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}

  uint64_t next() override {
    uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }
  int64_t between(int64_t low, int64_t high) {  // both included
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low + 1)));
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  // [0, 1)
  bool chance(double probability) { return probability > 0 && uniform() < probability; }
  Duration exponential(Duration mean) {
    return Duration(static_cast<int64_t>(-std::log(1 - uniform()) * static_cast<double>(mean.count())));
  }
  Duration duration(Duration low, Duration high) { return Duration(between(low.count(), high.count())); }

 private:
  uint64_t state_;
};

}  // namespace runahead::test
