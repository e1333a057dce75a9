#include "model/grammar/token_masks.h"

#include <algorithm>

#include "base/limits.h"

namespace runahead::grammar {
namespace {

void allow(TokenMask& mask, TokenId token) { mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64); }

}  // namespace

TokenTree::TokenTree(std::vector<std::string> bytes, std::vector<TokenId> end_tokens)
    : bytes_(std::move(bytes)), end_tokens_(std::move(end_tokens)) {
  for (const TokenId end : end_tokens_) bytes_[static_cast<size_t>(end)].clear();  // however it is spelled
  for (TokenId token = 0; token < vocab_size(); ++token)
    if (!bytes_[static_cast<size_t>(token)].empty()) tokens_.push_back(token);
  std::ranges::sort(tokens_, {}, [this](TokenId token) { return std::pair(this->bytes(token), token); });
  std::vector<int32_t> path;  // the nodes that the last token's bytes passed
  std::string_view last;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[static_cast<size_t>(path.back())].next = static_cast<int32_t>(nodes_.size());
  };
  for (int32_t i = 0; i < static_cast<int32_t>(tokens_.size()); ++i) {
    const std::string_view text = this->bytes(tokens_[static_cast<size_t>(i)]);
    const auto shared = static_cast<size_t>(std::ranges::mismatch(last, text).in2 - text.begin());
    close(shared);
    for (size_t depth = shared; depth < text.size(); ++depth) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(text[depth]), static_cast<int32_t>(depth), 0, i, i});
    }
    nodes_[static_cast<size_t>(path.back())].tokens_end = i + 1;  // equal texts follow each other
    depth_max_ = std::max(depth_max_, static_cast<int32_t>(text.size()));
    last = text;
  }
  close(0);
}

TokenMasks::TokenMasks(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const TokenTree> tree)
    : tree_(std::move(tree)), walk_(std::move(automaton)) {}

void TokenMasks::forget() {
  walk_.forget();
  masks_.clear();
  ++memory_;
}

// What was read before is read again only if its place was forgotten.
GrammarWalk::Place TokenMasks::read(std::span<const TokenId> generated, Reader& reader) {
  if (reader.memory != memory_ || reader.tokens > generated.size()) reader = {memory_, 0, walk_.start()};
  for (; reader.tokens < generated.size(); ++reader.tokens) {
    const TokenId token = generated[reader.tokens];
    const bool known = token >= 0 && token < tree_->vocab_size() && !tree_->bytes(token).empty();
    reader.place = known ? walk_.read(reader.place, tree_->bytes(token)) : GrammarWalk::kNowhere;
  }
  return reader.place;
}

Result<std::span<const uint64_t>> TokenMasks::behind(std::span<const TokenId> generated, Reader& reader) {
  const size_t masks_max =
      std::max<size_t>(limits::kGrammarMaskBytes / (static_cast<size_t>(tree_->vocab_size()) / 8 + 1), 1);
  if (walk_.crowded() || masks_.size() >= masks_max) forget();
  const GrammarWalk::Place place = read(generated, reader);
  auto found = masks_.find(place);
  if (found == masks_.end()) found = masks_.emplace(place, TRY(make(place))).first;
  return std::span<const uint64_t>(found->second);
}

Result<TokenMask> TokenMasks::make(GrammarWalk::Place place) {
  TokenMask mask((static_cast<size_t>(tree_->vocab_size()) + 63) / 64);
  std::vector<GrammarWalk::Place> places(static_cast<size_t>(tree_->depth_max_) + 1, GrammarWalk::kNowhere);
  places[0] = place;
  bool any = false;
  const uint64_t stacks_before = walk_.stacks_made();
  for (int32_t i = 0; i < static_cast<int32_t>(tree_->nodes_.size());) {
    const TokenTree::TreeNode& node = tree_->nodes_[static_cast<size_t>(i)];
    const auto depth = static_cast<size_t>(node.depth);
    places[depth + 1] = walk_.read(places[depth], node.byte);
    if (places[depth + 1] == GrammarWalk::kNowhere) {
      i = node.next;
      continue;
    }
    for (int32_t k = node.tokens_begin; k < node.tokens_end; ++k) allow(mask, tree_->tokens_[static_cast<size_t>(k)]);
    any = any || node.tokens_begin < node.tokens_end;
    ++i;
    if (walk_.full() || walk_.stacks_made() - stacks_before > limits::kGrammarMaskWorkMax)
      return fail(ErrorCode::kTooLarge,
                  "the schema is too ambiguous: it takes too long to tell which tokens may follow; make its "
                  "alternatives differ in their first field");
  }
  if (walk_.may_end(place))
    for (const TokenId end : tree_->end_tokens()) allow(mask, end), any = true;
  if (any) return mask;
  return fail(ErrorCode::kTooLarge, "no token of the model can follow in this schema; make it less ambiguous");
}

}  // namespace runahead::grammar
