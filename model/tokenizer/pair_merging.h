// PairMerging: joins neighbouring symbols of a piece of text, the pair of lowest rank first, leftmost first among equals, in
// O(n log n). What a pair becomes is the caller's to say. Private to model/tokenizer.
//   threads  one a thread.
//   memory   reused from piece to piece, so that nothing is allocated for each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace runahead {

// Of a table of pairs of ids.
constexpr uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

class PairMerging {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;  // no rank, no neighbour

  struct Symbol {
    int32_t id;
    uint32_t begin;  // offset in the piece
  };
  struct Merge {
    uint32_t rank;  // below kNone
    int32_t id;  // what the pair becomes
  };

  void start() {
    nodes_.clear();
    heap_.clear();
  }
  // From left to right.
  void add(Symbol symbol) {
    const auto index = static_cast<uint32_t>(nodes_.size());
    if (index > 0) nodes_.back().next = index;
    nodes_.push_back({symbol, index - 1, kNone, kNone, 0});  // 0 - 1 is kNone
  }
  // merge_of(left, right, end) -> std::optional<Merge>; the pair is the piece's bytes [left.begin, end). `size`: the piece's.
  template <class MergeOf>
  void run(uint32_t size, const MergeOf& merge_of) {
    size_ = size;
    for (uint32_t i = 0; i < nodes_.size(); ++i) add_candidate(i, merge_of);
    const std::greater<> later;
    std::make_heap(heap_.begin(), heap_.end(), later);
    const auto push = [&](uint32_t left) {
      if (add_candidate(left, merge_of)) std::push_heap(heap_.begin(), heap_.end(), later);
    };
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), later);
      const auto at = static_cast<uint32_t>(heap_.back());
      const auto rank = static_cast<uint32_t>(heap_.back() >> 32);
      heap_.pop_back();
      if (nodes_[at].rank != rank) continue;  // another merge came first
      absorb_right(at);
      push(at);
      if (nodes_[at].previous != kNone) push(nodes_[at].previous);
    }
  }
  // take(id, begin, end) for each symbol that is left, from left to right.
  template <class Take>
  void each(const Take& take) const {
    for (uint32_t at = nodes_.empty() ? kNone : 0; at != kNone; at = nodes_[at].next)
      take(nodes_[at].symbol.id, nodes_[at].symbol.begin, end_of(nodes_[at]));
  }

 private:
  struct Node {
    Symbol symbol;
    uint32_t previous, next;  // indices of the neighbours
    uint32_t rank;  // of the merge with the right neighbour
    int32_t merged;  // what that merge makes
  };

  uint32_t end_of(const Node& node) const { return node.next == kNone ? size_ : nodes_[node.next].symbol.begin; }

  // Looks up the merge of a node with its right neighbour, and adds it to the heap's end.
  template <class MergeOf>
  bool add_candidate(uint32_t left, const MergeOf& merge_of) {
    Node& node = nodes_[left];
    node.rank = kNone;
    if (node.next == kNone) return false;
    const Node& right = nodes_[node.next];
    const std::optional<Merge> merge = merge_of(node.symbol, right.symbol, end_of(right));
    if (!merge) return false;
    node.rank = merge->rank;
    node.merged = merge->id;
    heap_.push_back(uint64_t{node.rank} << 32 | left);
    return true;
  }

  void absorb_right(uint32_t at) {
    Node& left = nodes_[at];
    Node& right = nodes_[left.next];
    left.symbol.id = left.merged;
    left.next = right.next;
    right.rank = kNone;
    if (left.next != kNone) nodes_[left.next].previous = at;
  }

  uint32_t size_ = 0;
  std::vector<Node> nodes_;
  std::vector<uint64_t> heap_;  // rank << 32 | index of the left node; stale if that node's rank has changed
};

}  // namespace runahead
