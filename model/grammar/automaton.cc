#include "model/grammar/automaton.h"

#include <algorithm>
#include <map>

#include "base/limits.h"

namespace runahead::grammar {

// Behind the limit every new node is the last one: the writer need not ask, and what it writes is thrown away.
Node Automaton::node() {
  full_ = full_ || nodes_.size() >= limits::kGrammarNodesMax;
  if (!full_) nodes_.emplace_back();
  return static_cast<Node>(nodes_.size()) - 1;
}

void Automaton::read(Node from, uint8_t low, uint8_t high, Node to) {
  if (!full_) nodes_[static_cast<size_t>(from)].reads.push_back({low, high, to});
}

void Automaton::skip(Node from, Node to) {
  if (!full_) nodes_[static_cast<size_t>(from)].skips.push_back(to);
}

void Automaton::call(Node from, Rule rule, Node to) {
  if (!full_) nodes_[static_cast<size_t>(from)].calls.push_back({rule, to});
}

Node Automaton::text(Node from, std::string_view bytes) {
  for (const char c : bytes) {
    const Node to = node();
    read(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
  }
  return from;
}

Node Automaton::call(Node from, Rule rule) {
  const Node to = node();
  call(from, rule, to);
  return to;
}

Node Automaton::one_of(Node from, const std::vector<std::string>& texts) {
  const Node behind = node();
  std::map<std::pair<Node, char>, Node> tree;
  for (const std::string& bytes : texts) {
    Node at = from;
    for (const char c : bytes) {
      const auto [edge, is_new] = tree.try_emplace({at, c}, 0);
      if (is_new) {
        edge->second = node();
        read(at, static_cast<uint8_t>(c), static_cast<uint8_t>(c), edge->second);
      }
      at = edge->second;
    }
    skip(at, behind);
  }
  return behind;
}

Rule Automaton::rule() {
  const Node begin = node(), end = node();
  if (!full_) nodes_[static_cast<size_t>(end)].is_end = true;
  rules_.push_back({begin, end});
  return static_cast<Rule>(rules_.size()) - 1;
}

// Can its end be reached without a byte, where those in `empty` can?
bool Automaton::may_be_empty(Rule rule, const std::vector<bool>& empty) const {
  std::vector<Node> open = {begin(rule)};
  std::vector<bool> seen(nodes_.size());
  while (!open.empty()) {
    const Node node = open.back();
    open.pop_back();
    if (node == end(rule)) return true;
    if (seen[static_cast<size_t>(node)]) continue;
    seen[static_cast<size_t>(node)] = true;
    for (const Node to : skips(node)) open.push_back(to);
    for (const Call& inner : calls(node))
      if (empty[static_cast<size_t>(inner.rule)]) open.push_back(inner.to);
  }
  return false;
}

std::vector<bool> Automaton::rules_that_may_be_empty() const {
  std::vector<bool> empty(rules_.size());
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (empty[i] || !may_be_empty(static_cast<Rule>(i), empty)) continue;
      empty[i] = true;
      changed = true;
    }
  }
  return empty;
}

// Rules that it can call before it has read a byte.
std::vector<Rule> Automaton::called_first(Rule rule, const std::vector<bool>& empty) const {
  std::vector<Node> open = {begin(rule)};
  std::vector<bool> seen(nodes_.size());
  std::vector<Rule> called;
  while (!open.empty()) {
    const Node node = open.back();
    open.pop_back();
    if (seen[static_cast<size_t>(node)]) continue;
    seen[static_cast<size_t>(node)] = true;
    for (const Node to : skips(node)) open.push_back(to);
    for (const Call& inner : calls(node)) {
      called.push_back(inner.rule);
      if (empty[static_cast<size_t>(inner.rule)]) open.push_back(inner.to);
    }
  }
  return called;
}

// Those that do not reach the end of their rule.
void Automaton::remove_dead_ends() {
  std::vector<bool> alive(nodes_.size());
  const auto lives = [&](Node node) -> bool { return alive[static_cast<size_t>(node)]; };
  const auto call_lives = [&](const Call& inner) { return lives(begin(inner.rule)) && lives(inner.to); };
  const auto reaches_end = [&](const NodeEdges& node) {
    return node.is_end || std::ranges::any_of(node.reads, lives, &ByteEdge::to) ||
           std::ranges::any_of(node.skips, lives) || std::ranges::any_of(node.calls, call_lives);
  };
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = nodes_.size(); i-- > 0;) {  // writers go forwards: few rounds
      if (alive[i] || !reaches_end(nodes_[i])) continue;
      alive[i] = true;
      changed = true;
    }
  }
  for (NodeEdges& node : nodes_) {
    std::erase_if(node.reads, [&](const ByteEdge& edge) { return !lives(edge.to); });
    std::erase_if(node.skips, [&](Node to) { return !lives(to); });
    std::erase_if(node.calls, [&](const Call& inner) { return !call_lives(inner); });
  }
}

// No rule calls itself before it has read a byte: a walk would never come back.
Result<void> Automaton::check_calls() const {
  const std::vector<bool> empty = rules_that_may_be_empty();
  enum class State : uint8_t { kNew, kOpen, kDone };
  std::vector<State> states(rules_.size());
  std::vector<std::pair<Rule, std::vector<Rule>>> path;  // depth first, without recursion
  const auto enter = [&](Rule rule) {
    states[static_cast<size_t>(rule)] = State::kOpen;
    path.emplace_back(rule, called_first(rule, empty));
  };
  enter(start_);
  for (size_t next_root = 0; !path.empty() || next_root < rules_.size();) {
    if (path.empty()) {
      if (states[next_root] == State::kNew) enter(static_cast<Rule>(next_root));
      ++next_root;
      continue;
    }
    auto& [rule, left] = path.back();
    if (left.empty()) {
      states[static_cast<size_t>(rule)] = State::kDone;
      path.pop_back();
      continue;
    }
    const Rule next = left.back();
    left.pop_back();
    if (states[static_cast<size_t>(next)] == State::kOpen)
      return fail(ErrorCode::kUnsupported, "refers to itself without an object or a list in between");
    if (states[static_cast<size_t>(next)] == State::kNew) enter(next);
  }
  return {};
}

Result<void> Automaton::finish(Rule start) {
  start_ = start;
  if (full_)
    return fail(ErrorCode::kTooLarge, "takes more than " + std::to_string(limits::kGrammarNodesMax) +
                                          " places; ask for shorter texts and lists, or for fewer alternatives");
  remove_dead_ends();
  const NodeEdges& first = at(begin(start));
  if (first.reads.empty() && first.skips.empty() && first.calls.empty())
    return fail(ErrorCode::kInvalidArgument, "allows no value at all");
  return check_calls();
}

}  // namespace runahead::grammar
