// Philox4x32-10: a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The same (key, counter) gives the same bits on every machine and in every order: sampling uses key = seed,
// counter = token position, so a retry after a crash draws the same tokens (ADR 2).
#pragma once

#include <array>
#include <cstdint>

namespace runahead {

std::array<uint32_t, 4> philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// Uniform in [0, 1), 53 bits, from one Philox block.
double philox_uniform(uint64_t key, uint64_t counter_low, uint64_t counter_high = 0);

// Rng: randomness of the actors (jitter, ids) comes in through this seam, so that a seed replays a whole cluster.
class Rng {
 public:
  virtual ~Rng() = default;
  virtual uint64_t next() = 0;
};

// Of the operating system's cryptographic generator: for capabilities, which nobody may guess. Dies where it gives nothing.
class SystemRng final : public Rng {
 public:
  uint64_t next() override;
};

// Philox stream from a seed.
class SeededRng final : public Rng {
 public:
  explicit SeededRng(uint64_t seed) : seed_(seed) {}
  uint64_t next() override;

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
};

}  // namespace runahead
