// CodePoints: a set of Unicode code points, and how an automaton reads one of them inside a JSON string. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

class CodePoints {
 public:
  static constexpr uint32_t kMax = 0x10FFFF;

  CodePoints() = default;
  CodePoints(uint32_t low, uint32_t high) { add(low, high); }

  void add(uint32_t low, uint32_t high) { ranges_.emplace_back(low, high); }
  void add(const CodePoints& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }
  CodePoints others() const;  // all that are not in it
  // Ascending, disjoint, without surrogates, which are no characters.
  std::vector<std::pair<uint32_t, uint32_t>> ranges() const;

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

// The first character of a valid UTF-8 text that is not empty, which is shortened by it.
uint32_t take_code_point(std::string_view& text);

// One of the set as JSON writes it in a string: by itself, or by the shortest escape where it must have one (a quote, a
// backslash, a control character).
void read_in_string(Automaton& automaton, Node from, const CodePoints& set, Node to);
// Any character of a JSON string, by itself or by any escape that stands for it.
void read_any_in_string(Automaton& automaton, Node from, Node to);

}  // namespace runahead::grammar
