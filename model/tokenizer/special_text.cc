#include "model/tokenizer/special_text.h"

#include <algorithm>

#include "model/tokenizer/characters_of_words.h"

namespace runahead {

void SpecialTokenMatcher::add(std::string_view text, TokenId id, bool is_control,
                              const TokenSurroundings& surroundings) {
  if (text.empty()) return;
  begins_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [next, is_new] = edges_.try_emplace(edge(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = next->second;
  }
  if (nodes_[node].id == kNoToken) nodes_[node] = {id, is_control, surroundings};
}

SpecialTokenMatcher::Match SpecialTokenMatcher::next(std::string_view text, size_t from, size_t taken,
                                                     bool with_control) const {
  for (size_t at = from; at < text.size();) {
    const Found found = longest(text.substr(at), with_control);
    if (found.bytes == 0) {
      ++at;
      continue;
    }
    const size_t end = at + found.bytes;
    const TokenSurroundings& rules = found.node->surroundings;
    if (rules.single_word && (ends_in_word(text.substr(0, at)) || begins_with_word(text.substr(end)))) {
      at = end;  // as `tokenizers`: what begins within it is not looked for either
      continue;
    }
    Match match{.id = found.node->id, .begin = at, .end = end, .own_begin = at, .own_end = end, .resume = end};
    if (rules.lstrip) match.begin = std::max(taken, without_spaces_right(text.substr(0, at)).size());
    if (rules.rstrip) match.end = text.size() - without_spaces_left(text.substr(end)).size();
    if (rules.takes_ascii_spaces) match.end = match.resume = end_of_ascii_spaces(text, end, found.bytes, with_control);
    return match;
  }
  return {kNoToken, text.size(), text.size(), text.size(), text.size(), text.size()};
}

size_t SpecialTokenMatcher::end_of_ascii_spaces(std::string_view text, size_t at, size_t token_bytes,
                                                bool with_control) const {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  while (at < text.size() && kSpaces.contains(text[at])) {
    if (longest(text.substr(at), with_control).bytes > token_bytes) break;  // was cut out before
    ++at;
  }
  return at;
}

SpecialTokenMatcher::Found SpecialTokenMatcher::longest(std::string_view text, bool with_control) const {
  Found best;
  if (text.empty() || !begins_[static_cast<uint8_t>(text[0])]) return best;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto next = edges_.find(edge(node, text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    if (nodes_[node].id != kNoToken && (with_control || !nodes_[node].is_control)) best = {&nodes_[node], i + 1};
  }
  return best;
}

}  // namespace runahead
