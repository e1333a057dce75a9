// kernels/cpu/vec.h: every operation gives the same bits on every instruction set, so `generic`, which is plain C++, is
// what the others are compared with. Denormals are flushed, as in every run of a ThreadTeam.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "kernels/thread_team.h"
#include "vec_operations.h"

namespace runahead::test {
namespace {

struct InstructionSet {
  const char* name;
  const VecOperation* (*operations)();
};
void PrintTo(const InstructionSet& isa, std::ostream* out) { *out << isa.name; }
constexpr InstructionSet kGeneric{"generic", generic::vec_operations};
constexpr InstructionSet kInstructionSets[] = {
    kGeneric,
#if defined(RUNAHEAD_X86_KERNELS)
    {"avx2", avx2::vec_operations},
    {"avx512", avx512::vec_operations},
#endif
#if defined(RUNAHEAD_AVX512BF16_KERNELS)
    {"avx512bf16", avx512bf16::vec_operations},
#endif
};

constexpr uint32_t kSpecial[] = {
    0x00000000, 0x80000000,  // zeros
    0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF,  // the least and the greatest denormals
    0x00800000, 0x80800000, 0x00FFFFFF, 0x01000000,  // the least normals
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF,  // the greatest, and where bf16 rounds to infinity
    0x7F800000, 0xFF800000,  // infinities
    0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF,  // NaN: quiet, signalling
    0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF,  // around 1
    0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001,  // halfway between two bf16, even and odd, and beside it
    0x3F000000, 0x3FC00000, 0x40200000, 0xC0200000,  // 0.5, 1.5, 2.5, -2.5: halfway between two whole numbers
    0x4B800000, 0xCB800000, 0x4B7FFFFF, 0x4B000001,  // 2^24, where a unit is lost
    0x20000000, 0x1F800000, 0x60000000, 0x5F800000,  // products at the ends of the range
};

uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

// Operands of a domain: special values, any bits, ordinary sizes, and values that cancel what the others make.
class Operands {
 public:
  explicit Operands(uint64_t seed) : random_(seed) {}

  VecInput make(VecDomain domain) {
    VecInput in;
    for (int lane = 0; lane < 16; ++lane) fill(domain, in.a[lane], in.b[lane], in.c[lane], in.d[lane]);
    return in;
  }

 private:
  uint32_t next() { return static_cast<uint32_t>(random_() >> 32); }
  double uniform(double low, double high) { return low + (high - low) * (next() * 0x1p-32); }
  uint32_t number() {
    switch (next() % 4) {
      case 0:
        return kSpecial[next() % std::size(kSpecial)];
      case 1:
        return next();
      case 2:
        return bits_of(static_cast<float>(uniform(-4, 4)));
      default:
        return bits_of(static_cast<float>(std::ldexp(uniform(-1, 1), static_cast<int>(next() % 48) - 24)));
    }
  }
  // -x but for a few units in the last place.
  uint32_t minus(float x) { return bits_of(-x) + next() % 5 - 2; }
  static bool is_denormal(uint32_t bits) { return (bits & 0x7F800000) == 0 && (bits & 0x007FFFFF) != 0; }
  uint32_t no_denormal() {
    uint32_t bits = number();
    while (is_denormal(bits)) bits = number();
    return bits;
  }
  uint32_t roundable() {
    uint32_t bits = no_denormal();
    while (std::isnan(float_of(bits))) bits = no_denormal();
    return bits;
  }
  uint32_t below(float limit) {  // in size
    for (;;) {
      const float x = float_of(next() % 2 == 0 ? number() : bits_of(static_cast<float>(uniform(-40000, 40000))));
      if (std::fabs(x) < limit) return bits_of(x);
    }
  }
  uint32_t byte_range() {
    const double x = uniform(0, 255);
    return bits_of(static_cast<float>(next() % 2 == 0 ? std::floor(x * 2) / 2 : x));
  }

  void fill(VecDomain domain, uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    a = next(), b = next(), c = next(), d = next();
    switch (domain) {
      case VecDomain::kAnyBits:
        if (next() % 4 == 0) a = kSpecial[next() % std::size(kSpecial)];
        if (next() % 4 == 0) b = kSpecial[next() % std::size(kSpecial)];
        break;
      case VecDomain::kNumbers:
        a = number(), b = number(), c = number();
        if (next() % 4 == 0) c = minus(float_of(a) * float_of(b));
        if (next() % 8 == 0) b = minus(float_of(a));
        break;
      case VecDomain::kNoDenormals:
        a = no_denormal(), b = next() % 8 == 0 ? a ^ 0x80000000 : no_denormal();
        break;
      case VecDomain::kRoundable:
        a = roundable(), b = roundable();
        break;
      case VecDomain::kPairs:
        fill_pairs(a, b, c);
        break;
      case VecDomain::kScaled:
        a = number(), b = bits_of(static_cast<float>(static_cast<int>(next() % 254) - 126));
        break;
      case VecDomain::kExponents:
        do a = next() % 2 == 0 ? number() : bits_of(static_cast<float>(uniform(-140, 127)));
        while (float_of(a) > 127);
        break;
      case VecDomain::kInt32Range:
        a = below(2147483520.0f), b = below(2147483520.0f);
        break;
      case VecDomain::kByteRange:
        a = byte_range(), b = byte_range(), c = byte_range(), d = byte_range();
        break;
      case VecDomain::kExponentSteps:
        a = next() % 8 == 0 ? next() & 0x80000000 : (next() & 0x807FFFFF) | (64 + next() % 128) << 23;
        b = next() % 64 << 23;
        break;
      case VecDomain::kDotInt16:
        a = next() % 2000 - 1000;
        if (next() % 4 == 0) b |= 0x7FFF7FFF, c = 0x80018001;  // the largest sums: two products of 32767 * 32767
        if (b == 0x80008000) b = 0;  // two of 32768 * 32768 do not fit
        break;
      default:
        a = next() % 0x40000000 - 0x20000000;
        if (next() % 4 == 0) b = 0xFFFFFFFF, c = next() % 2 == 0 ? 0x80808080 : 0x7F7F7F7F;
    }
  }
  void fill_pairs(uint32_t& a, uint32_t& b, uint32_t& c) {
    const auto pair = [&] { return (number() & 0xFFFF0000) | number() >> 16; };
    a = number(), b = pair(), c = pair();
    const float odd = float_of(b & 0xFFFF0000) * float_of(c & 0xFFFF0000), even = float_of(b << 16) * float_of(c << 16);
    switch (next() % 6) {
      case 0:
        a = minus(odd);
        break;
      case 1:
        a = minus(even);
        break;
      case 2:
        a = minus(odd + even);
        break;
      case 3:  // the products cancel each other
        b = (b & 0xFFFF0000) | ((b >> 16) ^ 0x8000), c = (c & 0xFFFF0000) | ((c >> 16) + next() % 3);
        break;
      default:
        break;
    }
  }

  std::mt19937_64 random_;
};

bool same(VecResult result, uint32_t got, uint32_t want) {
  return got == want || (result == VecResult::kNumbers && std::isnan(float_of(got)) && std::isnan(float_of(want)));
}

void compare(const VecOperation& ours, const VecOperation& plain, int rounds) {
  ASSERT_STREQ(ours.name, plain.name);
  Operands operands(std::hash<std::string>()(ours.name));
  for (int round = 0; round < rounds; ++round) {
    const VecInput in = operands.make(ours.domain);
    VecOutput got{}, want{};
    {
      FlushDenormals flush;
      ours.run(in, got);
      plain.run(in, want);
    }
    for (int lane = 0; lane < 16; ++lane)
      ASSERT_TRUE(same(ours.result, got.bits[lane], want.bits[lane]))
          << ours.name << ", word " << lane << ", round " << round << std::hex << ": " << got.bits[lane]
          << " instead of " << want.bits[lane] << "; operands " << in.a[lane] << ' ' << in.b[lane] << ' ' << in.c[lane]
          << ' ' << in.d[lane];
  }
}

class VecTest : public ::testing::TestWithParam<InstructionSet> {
 protected:
  // ops_select.cc knows what the processor has.
  void SetUp() override {
    for (const OpTable* ops : runnable_ops())
      if (ops->isa == GetParam().name) return;
    GTEST_SKIP() << "this processor has no " << GetParam().name;
  }
  VecOutput run(const std::string& name, const VecInput& in) {
    VecOutput out{};
    const VecOperation* operation = GetParam().operations();
    while (operation->name != nullptr && operation->name != name) ++operation;
    if (operation->name == nullptr) {
      ADD_FAILURE() << "no operation " << name;
      return out;
    }
    FlushDenormals flush;
    operation->run(in, out);
    return out;
  }
};

// 16 lanes a round: 3.2 million cases of the bf16 dot, which is an instruction on one set and an emulation on the others.
TEST_P(VecTest, EveryOperationGivesTheBitsOfGeneric) {
  const VecOperation* plain = kGeneric.operations();
  const bool itself = GetParam().operations == kGeneric.operations;  // then only: it repeats itself
  int count = 0;
  for (const VecOperation* ours = GetParam().operations(); ours->name != nullptr; ++ours, ++plain, ++count)
    compare(*ours, *plain, itself ? 100 : std::string(ours->name) == "dot_pairs" ? 200'000 : 10'000);
  EXPECT_EQ(plain->name, nullptr);
  EXPECT_GT(count, 40);
}

// What the bits are, so that all of them cannot be wrong alike: fma(even, fma(odd, acc)), each rounded.
TEST_P(VecTest, ABf16DotAddsTheOddProductFirstAndRoundsTwice) {
  struct Case {
    float acc, odd_a, odd_b, even_a, even_b, sum;
  };
  const float most = 0x1p127f, infinity = std::numeric_limits<float>::infinity();
  const Case cases[] = {
      {0, 3, 5, 7, 11, 92},
      {0x1p24f, 1, 1, 1, 1, 0x1p24f},  // rounded once, both units would stay
      {0x1p24f, -0x1p12f, 0x1p12f, 1, 1, 1},  // with the even product first, its unit would be lost
      {0x1p24f, 1, 1, -0x1p12f, 0x1p12f, 0},  // and so is the odd one here
      {-most, most, 2, 0, 0, most},  // fused: the product alone is past the range
      {0, most, 2, -most, 2, infinity},  // the sum after the odd product is, and stays infinite
      {0x1p-149f, 0, 0, 0, 0, 0},  // a denormal is zero: the sum,
      {0, 0x1p-133f, 0x1p100f, 0, 0, 0},  // a factor,
      {0, 0x1p-100f, 0x1p-30f, 0x1p-100f, 0x1p-30f, 0},  // the result, of which two would be
      {0x1p-126f, -0x1p-100f, 0x1p-30f, 0x1p-100f, 0x1p-30f, 0},
  };
  for (const Case& test : cases) {
    VecInput in{};
    for (int lane = 0; lane < 16; ++lane) {
      in.a[lane] = bits_of(test.acc);
      in.b[lane] = bits_of(test.odd_a) | bits_of(test.even_a) >> 16;
      in.c[lane] = bits_of(test.odd_b) | bits_of(test.even_b) >> 16;
    }
    const VecOutput out = run("dot_pairs", in);
    for (int lane = 0; lane < 16; ++lane)
      EXPECT_EQ(float_of(out.bits[lane]), test.sum) << "case " << &test - cases << ", lane " << lane;
  }
}

TEST_P(VecTest, Bf16IsRoundedToNearestEven) {
  const std::pair<uint32_t, uint16_t> cases[] = {
      {0x3F800000, 0x3F80}, {0x3F807FFF, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F808001, 0x3F81}, {0x3F818000, 0x3F82},
      {0xBF818000, 0xBF82}, {0x7F7F7FFF, 0x7F7F}, {0x7F7F8000, 0x7F80}, {0xFF7FFFFF, 0xFF80}, {0x7F800000, 0x7F80},
      {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x00800000, 0x0080}, {0x3FFFFFFF, 0x4000},
  };
  for (const auto& [from, to] : cases) {
    VecInput in{};
    for (int lane = 0; lane < 16; ++lane) in.a[lane] = from, in.b[lane] = bits_of(1);
    EXPECT_EQ(run("store_bf16", in).bits[7], static_cast<uint32_t>(to) << 16 | to) << std::hex << from;
    EXPECT_EQ(run("interleave_bf16", in).bits[15], 0x3F800000u | to) << std::hex << from;
  }
}

TEST_P(VecTest, ASumOverLanesHasOneTree) {
  for (int distance : {8, 4, 2}) {
    VecInput in{};
    in.a[0] = bits_of(0x1p24f), in.a[distance] = bits_of(-0x1p24f), in.a[distance / 2] = bits_of(1);
    EXPECT_EQ(float_of(run("reduce_add", in).bits[0]), 1) << "lanes " << distance << " apart meet first";
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, VecTest, ::testing::ValuesIn(kInstructionSets),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace runahead::test
