// Compiled once per instruction set: see vec_operations.h.
#include "vec_operations.h"

#include "kernels/cpu/vec.h"

namespace runahead::RUNAHEAD_ISA {
namespace {

using test::VecInput;
using test::VecOutput;

VecF floats(const uint32_t* p) {
  float lanes[16];
  std::memcpy(lanes, p, sizeof(lanes));
  return load(lanes);
}
float first(const uint32_t* p) {
  float x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
const uint16_t* words(const uint32_t* p) { return reinterpret_cast<const uint16_t*>(p); }

void put(VecOutput& out, VecF x) {
  float lanes[16];
  store(lanes, x);
  std::memcpy(out.bits, lanes, sizeof(lanes));
}
void put(VecOutput& out, VecI x) { store_bytes(out.bits, x); }
void put(VecOutput& out, float x) { std::memcpy(out.bits, &x, sizeof(x)); }

using enum test::VecDomain;
constexpr auto kBits = test::VecResult::kBits, kNumber = test::VecResult::kNumbers;

#define RUN(...) [](const VecInput& in, VecOutput& out) { __VA_ARGS__; }

// clang-format off
constexpr test::VecOperation kOperations[] = {
    {"zero", kAnyBits, kBits, RUN((void)in, put(out, zero()))},
    {"set1", kAnyBits, kBits, RUN(put(out, set1(first(in.a))))},
    {"load", kAnyBits, kBits, RUN(put(out, floats(in.a)))},
    {"add", kNumbers, kNumber, RUN(put(out, add(floats(in.a), floats(in.b))))},
    {"sub", kNumbers, kNumber, RUN(put(out, sub(floats(in.a), floats(in.b))))},
    {"mul", kNumbers, kNumber, RUN(put(out, mul(floats(in.a), floats(in.b))))},
    {"div", kNumbers, kNumber, RUN(put(out, div(floats(in.a), floats(in.b))))},
    {"max", kNoDenormals, kNumber, RUN(put(out, max(floats(in.a), floats(in.b))))},
    {"min", kNoDenormals, kNumber, RUN(put(out, min(floats(in.a), floats(in.b))))},
    {"abs", kAnyBits, kBits, RUN(put(out, abs(floats(in.a))))},
    {"fma", kNumbers, kNumber, RUN(put(out, fma(floats(in.a), floats(in.b), floats(in.c))))},
    {"round_nearest", kNumbers, kNumber, RUN(put(out, round_nearest(floats(in.a))))},
    {"scale_by_exp2", kScaled, kNumber, RUN(put(out, scale_by_exp2(floats(in.a), floats(in.b))))},
    {"keep_where_least", kAnyBits, kBits,
     RUN(put(out, keep_where_least(floats(in.a), load_bytes(in.b), static_cast<int>(in.c[0]), first(in.d))))},
    {"swap_lanes<1>", kAnyBits, kBits, RUN(put(out, swap_lanes<1>(floats(in.a))))},
    {"swap_lanes<2>", kAnyBits, kBits, RUN(put(out, swap_lanes<2>(floats(in.a))))},
    {"swap_lanes<4>", kAnyBits, kBits, RUN(put(out, swap_lanes<4>(floats(in.a))))},
    {"swap_lanes<8>", kAnyBits, kBits, RUN(put(out, swap_lanes<8>(floats(in.a))))},
    {"swap_middle", kAnyBits, kBits, RUN(put(out, swap_middle(floats(in.a))))},
    {"reduce_max", kNoDenormals, kNumber, RUN(put(out, reduce_max(floats(in.a))))},
    {"reduce_add", kNumbers, kNumber, RUN(put(out, reduce_add(floats(in.a))))},
    {"exp2", kExponents, kNumber, RUN(put(out, exp2(floats(in.a))))},
    {"exp2_coarse", kExponents, kNumber, RUN(put(out, exp2_coarse(floats(in.a))))},
    {"silu", kNumbers, kNumber, RUN(put(out, silu(floats(in.a))))},

    {"load_bytes", kAnyBits, kBits, RUN(put(out, load_bytes(in.a)))},
    {"zero_int", kAnyBits, kBits, RUN((void)in, put(out, zero_int()))},
    {"set1_int", kAnyBits, kBits, RUN(put(out, set1_int(static_cast<int32_t>(in.a[0]))))},
    {"bit_and", kAnyBits, kBits, RUN(put(out, bit_and(load_bytes(in.a), load_bytes(in.b))))},
    {"bit_or", kAnyBits, kBits, RUN(put(out, bit_or(load_bytes(in.a), load_bytes(in.b))))},
    {"shift_right", kAnyBits, kBits, RUN(put(out, shift_right(load_bytes(in.a), static_cast<int>(in.b[0] % 32))))},
    {"shift_left", kAnyBits, kBits, RUN(put(out, shift_left(load_bytes(in.a), static_cast<int>(in.b[0] % 32))))},
    {"add_bytes", kAnyBits, kBits, RUN(put(out, add_bytes(load_bytes(in.a), load_bytes(in.b))))},
    {"sub_bytes", kAnyBits, kBits, RUN(put(out, sub_bytes(load_bytes(in.a), load_bytes(in.b))))},
    {"look_up", kAnyBits, kBits,
     RUN(put(out, look_up(bit_and(load_bytes(in.a), set1_int(0x0F0F0F0F)), reinterpret_cast<const uint8_t*>(in.b))))},
    {"sums_and_differences", kAnyBits, kBits, RUN(put(out, sums_and_differences(load_bytes(in.a))))},
    {"to_float", kAnyBits, kBits, RUN(put(out, to_float(load_bytes(in.a))))},
    {"add_to_exponent", kExponentSteps, kBits, RUN(put(out, add_to_exponent(floats(in.a), load_bytes(in.b))))},
    {"load_half", kAnyBits, kNumber, RUN(put(out, load_half(words(in.a))))},
    {"load_int8", kAnyBits, kBits, RUN(put(out, load_int8(reinterpret_cast<const int8_t*>(in.a))))},
    {"store_int16", kInt32Range, kBits, RUN(store_int16(reinterpret_cast<int16_t*>(out.bits), floats(in.a)))},
    {"interleave_int16", kInt32Range, kBits, RUN(put(out, interleave_int16(floats(in.a), floats(in.b))))},
    {"store_int8", kInt32Range, kBits, RUN(store_int8(reinterpret_cast<int8_t*>(out.bits), floats(in.a)))},
    {"store_uint8", kByteRange, kBits, RUN(store_uint8(reinterpret_cast<uint8_t*>(out.bits), floats(in.a)))},
    {"interleave_uint8", kByteRange, kBits,
     RUN(put(out, interleave_uint8(floats(in.a), floats(in.b), floats(in.c), floats(in.d))))},
    {"dot_s16", kDotInt16, kBits, RUN(put(out, dot_s16(load_bytes(in.a), load_bytes(in.b), load_bytes(in.c))))},
    {"dot_u8s8", kDotInt8, kBits, RUN(put(out, dot_u8s8(load_bytes(in.a), load_bytes(in.b), load_bytes(in.c))))},

    {"load_pairs and store_pairs", kAnyBits, kBits,
     RUN(store_pairs(reinterpret_cast<uint16_t*>(out.bits), load_pairs(words(in.a))))},
    {"broadcast_pair", kAnyBits, kBits,
     RUN(store_pairs(reinterpret_cast<uint16_t*>(out.bits), broadcast_pair(words(in.a))))},
    {"even_of_pairs", kAnyBits, kBits, RUN(put(out, even_of_pairs(load_pairs(words(in.a)))))},
    {"odd_of_pairs", kAnyBits, kBits, RUN(put(out, odd_of_pairs(load_pairs(words(in.a)))))},
    {"dot_pairs", kPairs, kNumber,
     RUN(put(out, dot_pairs(floats(in.a), load_pairs(words(in.b)), load_pairs(words(in.c)))))},
    {"interleave_bf16", kRoundable, kBits,
     RUN(store_pairs(reinterpret_cast<uint16_t*>(out.bits), interleave_bf16(floats(in.a), floats(in.b))))},
    {"store_bf16", kRoundable, kBits, RUN(store_bf16(reinterpret_cast<uint16_t*>(out.bits), floats(in.a)))},
    {"load_bf16", kAnyBits, kBits, RUN(put(out, load_bf16(words(in.a))))},
    {},
};
// clang-format on

#undef RUN

}  // namespace

const test::VecOperation* vec_operations() { return kOperations; }

}  // namespace runahead::RUNAHEAD_ISA
