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
  Match best;
  bool takes_spaces = false;
  if (text.empty() || !begins_[static_cast<uint8_t>(text[0])]) return best;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto next = edges_.find(edge(node, text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    if (nodes_[node].id == kNoToken || (nodes_[node].is_control && !with_control)) continue;
    best = {nodes_[node].id, i + 1};
    takes_spaces = nodes_[node].takes_spaces;
  }
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  while (takes_spaces && best.bytes < text.size() && kSpaces.contains(text[best.bytes])) ++best.bytes;
  return best;
}

}  // namespace runahead
