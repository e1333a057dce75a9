#include "model/tokenizer/special_text.h"

namespace runahead {

void SpecialTokenMatcher::add(std::string_view text, TokenId id, bool is_control, bool takes_spaces) {
  if (text.empty()) return;
  begins_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [next, is_new] = edges_.try_emplace(edge(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = next->second;
  }
  if (nodes_[node].id == kNoToken) nodes_[node] = {id, is_control, takes_spaces};
}

SpecialTokenMatcher::Match SpecialTokenMatcher::match(std::string_view text, bool with_control) const {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  const Found found = longest(text, with_control);
  Match match = found.match;
  if (!found.takes_spaces) return match;
  while (match.bytes < text.size() && kSpaces.contains(text[match.bytes])) {
    if (longest(text.substr(match.bytes), with_control).match.bytes > found.match.bytes) break;  // was cut out before
    ++match.bytes;
  }
  return match;
}

SpecialTokenMatcher::Found SpecialTokenMatcher::longest(std::string_view text, bool with_control) const {
  Found best;
  if (text.empty() || !begins_[static_cast<uint8_t>(text[0])]) return best;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto next = edges_.find(edge(node, text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    if (nodes_[node].id != kNoToken && (with_control || !nodes_[node].is_control))
      best = {{nodes_[node].id, i + 1}, nodes_[node].takes_spaces};
  }
  return best;
}

}  // namespace runahead
