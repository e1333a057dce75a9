#include "model/grammar/text_with.h"

#include <functional>
#include <optional>

namespace runahead::grammar {
namespace {

constexpr std::string_view kSpace = " \n\r\t";

// Every byte but kControlByte leads to where `target` says, or nowhere.
void read_each(Automaton& automaton, Node from, const std::function<std::optional<Node>(char)>& target) {
  constexpr int kBytes = static_cast<uint8_t>(kControlByte);
  for (int low = 0, high = 0; low < kBytes; low = high) {
    const std::optional<Node> to = target(static_cast<char>(low));
    for (high = low + 1; high < kBytes && target(static_cast<char>(high)) == to;) ++high;
    if (to) automaton.read(from, static_cast<uint8_t>(low), static_cast<uint8_t>(high - 1), *to);
  }
}

// How much of the marker has been read when `c` follows its first `length` bytes.
size_t marker_length(std::string_view marker, size_t length, char c) {
  const std::string read = std::string(marker.substr(0, length)) + c;
  size_t kept = read.size();
  while (!read.ends_with(marker.substr(0, kept))) --kept;
  return kept;
}

// [n]: the marker's first n bytes have been read, and not all of it before.
std::vector<Node> read_marker(Automaton& automaton, std::string_view marker) {
  std::vector<Node> nodes;
  while (nodes.size() <= marker.size()) nodes.push_back(automaton.node());
  for (size_t length = 0; length < marker.size(); ++length)
    read_each(automaton, nodes[length], [&](char c) { return nodes[marker_length(marker, length, c)]; });
  return nodes;
}

}  // namespace

Node write_text_until(Automaton& automaton, std::string_view marker, Node from) {
  const std::vector<Node> nodes = read_marker(automaton, marker);
  automaton.skip(from, nodes.front());
  return nodes.back();
}

TextWith write_text(Automaton& automaton, std::string_view marker, std::string_view not_first, Node from) {
  const std::vector<Node> nodes = read_marker(automaton, marker);
  const TextWith text{nodes.back(), nodes.front(), automaton.node()};
  const std::string token = control_bytes(marker);
  for (size_t length = 0; length < marker.size(); ++length) {
    automaton.skip(automaton.text(nodes[length], token), text.found);
    automaton.skip(nodes[length], text.end);
  }
  if (not_first.empty()) return automaton.skip(from, text.again), text;
  const Node first = automaton.node();
  automaton.skip(from, first);
  automaton.skip(first, text.end);
  automaton.skip(automaton.text(first, token), text.found);
  read_each(automaton, first, [&](char c) -> std::optional<Node> {
    if (kSpace.contains(c)) return first;
    if (not_first.contains(c)) return {};
    return nodes[marker_length(marker, 0, c)];
  });
  return text;
}

}  // namespace runahead::grammar
