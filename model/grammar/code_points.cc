#include "model/grammar/code_points.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "base/utf8.h"

namespace runahead::grammar {
namespace {

constexpr uint32_t kSurrogatesBegin = 0xD800, kSurrogatesEnd = 0xDFFF;

struct Encoded {
  std::array<uint8_t, 4> bytes = {};
  int size = 0;
};

Encoded utf8(uint32_t point) {
  const auto tail = [point](int shift) { return static_cast<uint8_t>(0x80 | (point >> shift & 0x3F)); };
  if (point < 0x80) return {{static_cast<uint8_t>(point)}, 1};
  if (point < 0x800) return {{static_cast<uint8_t>(0xC0 | point >> 6), tail(0)}, 2};
  if (point < 0x10000) return {{static_cast<uint8_t>(0xE0 | point >> 12), tail(6), tail(0)}, 3};
  return {{static_cast<uint8_t>(0xF0 | point >> 18), tail(12), tail(6), tail(0)}, 4};
}

// [low, high] of equally long encodings. Where the bytes of both ends run from 80 to BF behind a place, one range a byte says it
// all; else the range is cut where they do.
void read_utf8(Automaton& automaton, Node from, uint32_t low, uint32_t high, Node to) {
  constexpr std::array kLengthEnds = {0x7Fu, 0x7FFu, 0xFFFFu};
  for (const uint32_t end : kLengthEnds) {
    if (low > end || high <= end) continue;
    read_utf8(automaton, from, low, end, to);
    return read_utf8(automaton, from, end + 1, high, to);
  }
  const int size = utf8(low).size;
  for (int tail = 1; tail < size; ++tail) {
    const uint32_t mask = (1u << (6 * tail)) - 1;  // what the last `tail` bytes carry
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      read_utf8(automaton, from, low, low | mask, to);
      return read_utf8(automaton, from, (low | mask) + 1, high, to);
    }
    if ((high & mask) != mask) {
      read_utf8(automaton, from, low, (high & ~mask) - 1, to);
      return read_utf8(automaton, from, high & ~mask, high, to);
    }
  }
  const Encoded first = utf8(low), last = utf8(high);
  for (int i = 0; i < size; ++i) {
    const Node next = i + 1 == size ? to : automaton.node();
    automaton.read(from, first.bytes[static_cast<size_t>(i)], last.bytes[static_cast<size_t>(i)], next);
    from = next;
  }
}

// Of a control character, the quote and the backslash.
std::string escape(uint32_t point) {
  switch (point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  char text[8];
  std::snprintf(text, sizeof text, "\\u%04x", point);
  return text;
}

bool is_escaped(uint32_t point) { return point < 0x20 || point == '"' || point == '\\'; }

Node read_hex(Automaton& automaton, Node from, std::string_view digits) {  // both cases of letters
  const Node to = automaton.node();
  for (const char digit : digits) {
    const auto byte = static_cast<uint8_t>(digit);
    automaton.read(from, byte, byte, to);
    if (digit >= 'a') automaton.read(from, static_cast<uint8_t>(byte - 0x20), static_cast<uint8_t>(byte - 0x20), to);
  }
  return to;
}

}  // namespace

std::vector<std::pair<uint32_t, uint32_t>> CodePoints::ranges() const {
  std::vector<std::pair<uint32_t, uint32_t>> sorted;
  for (const auto& [low, high] : ranges_) {
    if (low < kSurrogatesBegin) sorted.emplace_back(low, std::min(high, kSurrogatesBegin - 1));
    if (high > kSurrogatesEnd) sorted.emplace_back(std::max(low, kSurrogatesEnd + 1), high);
  }
  std::ranges::sort(sorted);
  std::vector<std::pair<uint32_t, uint32_t>> joined;
  for (const auto& [low, high] : sorted) {
    if (!joined.empty() && low <= joined.back().second + 1) joined.back().second = std::max(joined.back().second, high);
    else joined.emplace_back(low, high);
  }
  return joined;
}

CodePoints CodePoints::others() const {
  CodePoints rest;
  uint32_t begin = 0;
  for (const auto& [low, high] : ranges()) {
    if (low > begin) rest.add(begin, low - 1);
    begin = high + 1;
  }
  if (begin <= kMax) rest.add(begin, kMax);
  return rest;
}

uint32_t take_code_point(std::string_view& text) {
  const size_t bytes = utf8_sequence(text).bytes;
  uint32_t point = static_cast<uint8_t>(text[0]);
  if (bytes > 1) point &= 0x7Fu >> bytes;
  for (size_t i = 1; i < bytes; ++i) point = point << 6 | (static_cast<uint8_t>(text[i]) & 0x3F);
  text.remove_prefix(bytes);
  return point;
}

void read_in_string(Automaton& automaton, Node from, const CodePoints& set, Node to) {
  for (const auto& [low, high] : set.ranges()) {
    uint32_t begin = low;
    for (uint32_t point = low; point <= std::min<uint32_t>(high, '\\'); ++point) {
      if (!is_escaped(point)) continue;
      if (begin < point) read_utf8(automaton, from, begin, point - 1, to);
      automaton.skip(automaton.text(from, escape(point)), to);
      begin = point + 1;
    }
    if (begin <= high) read_utf8(automaton, from, begin, high, to);
  }
}

void read_any_in_string(Automaton& automaton, Node from, Node to) {
  CodePoints special;
  special.add('"', '"');
  special.add('\\', '\\');
  special.add(0, 0x1F);
  read_in_string(automaton, from, special.others(), to);
  const Node escape = automaton.text(from, "\\");
  for (const char letter : std::string_view("\"\\/bfnrt"))
    automaton.read(escape, static_cast<uint8_t>(letter), static_cast<uint8_t>(letter), to);
  constexpr std::string_view kHex = "0123456789abcdef", kLowHalf = "01234567", kNotD = "0123456789abcef";
  const Node u = automaton.text(escape, "u");
  const auto two_more = [&](Node at) { return read_hex(automaton, read_hex(automaton, at, kHex), kHex); };
  automaton.skip(two_more(read_hex(automaton, read_hex(automaton, u, kNotD), kHex)), to);
  const Node d = read_hex(automaton, u, "d");
  automaton.skip(two_more(read_hex(automaton, d, kLowHalf)), to);
  const Node high = automaton.text(two_more(read_hex(automaton, d, "89ab")), "\\u");  // a pair of surrogates
  automaton.skip(two_more(read_hex(automaton, read_hex(automaton, high, "d"), "cdef")), to);
}

}  // namespace runahead::grammar
