#include "base/rng.h"

#include <sys/random.h>

#include "base/check.h"

namespace runahead {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;  // the paper's table 2
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

}  // namespace

std::array<uint32_t, 4> philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                               static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return c;
}

double philox_uniform(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  const auto block = philox4x32(key, counter_low, counter_high);
  const uint64_t bits = (static_cast<uint64_t>(block[0]) << 32 | block[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

uint64_t SystemRng::next() {
  uint64_t bits = 0;
  RUNAHEAD_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits, "no randomness from the operating system");
  return bits;
}

uint64_t SeededRng::next() {
  const auto block = philox4x32(seed_, counter_++);
  return static_cast<uint64_t>(block[0]) << 32 | block[1];
}

}  // namespace runahead
