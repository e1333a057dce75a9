// RoPE as a file asks for it: the frequencies of a head's pairs, whatever scales them. model/model_config.cc calls it.
//   scaling  linear; YaRN (arXiv 2309.00071); divisors of each pair (Llama 3.1, LongRoPE: arXiv 2402.13753); all as llama.cpp
//            computes them.
//   threads  pure.
#pragma once

#include <cstdint>
#include <vector>

#include "model/architecture.h"

namespace runahead {

struct RopeScaling {
  float factor = 1;  // positions are divided by it
  bool yarn = false;  // pairs that turn often within the original context keep their speed
  float beta_fast = 32, beta_slow = 1;  // turns within it: more than fast, and a pair keeps its speed; less than slow, and none
  int32_t original_context = 0;  // tokens
  float attention_factor = 1;  // of magnitude
  std::vector<float> divisors;  // [rotated / 2], or empty: all 1
};

// head_dim / 2 frequencies, of which the first rotated / 2 turn.
RopeConfig scaled_rope(float base, int32_t head_dim, int32_t rotated, const RopeScaling& scaling);
// Of layers that turn nothing.
RopeConfig no_rope(int32_t head_dim);

}  // namespace runahead
