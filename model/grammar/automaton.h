// Automaton: a grammar as a machine over bytes. Nodes are joined by edges that read a byte of a range, by skips that read
// nothing, and by calls of rules, which read what the rule reads; so it may nest without end, as JSON does. Who walks it keeps
// a set of stacks of nodes (grammar_walk.h). Built once by a writer of grammars (json_schema.h), then only read.
//   threads  one that builds; then any.
//   limits   limits::kGrammarNodesMax: a writer goes on behind it without effect, and finish() says so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead::grammar {

using Node = int32_t;  // its index
using Rule = int32_t;

// Control tokens have no bytes in an answer. Here each has its spelling between two of these: no text has that byte, so that only
// a grammar that names the token lets it follow.
inline constexpr char kControlByte = '\xFF';
inline std::string control_bytes(std::string_view spelling) {
  return kControlByte + std::string(spelling) + kControlByte;
}

class Automaton {
 public:
  struct ByteEdge {
    uint8_t low, high;  // both inclusive
    Node to;
  };
  struct Call {
    Rule rule;
    Node to;  // behind what the rule reads
  };

  // ---- writing ----
  Node node();
  void read(Node from, uint8_t low, uint8_t high, Node to);
  void skip(Node from, Node to);
  void call(Node from, Rule rule, Node to);
  Node text(Node from, std::string_view bytes);  // the node behind them
  Node call(Node from, Rule rule);
  // One of the texts, as a tree: those that begin alike are not told apart before they differ. None of them is empty.
  Node one_of(Node from, const std::vector<std::string>& texts);
  Rule rule();  // with nothing in it: the writer joins begin(rule) and end(rule)
  bool full() const { return full_; }
  // `start` is what a whole text must be. Edges that lead to no end are taken away. kTooLarge; kInvalidArgument if there is no
  // text; kUnsupported if a rule can call itself before it has read a byte.
  Result<void> finish(Rule start);

  // ---- reading ----
  Node begin(Rule rule) const { return rules_[static_cast<size_t>(rule)].begin; }
  Node end(Rule rule) const { return rules_[static_cast<size_t>(rule)].end; }
  Rule start() const { return start_; }
  bool is_end(Node node) const { return at(node).is_end; }
  const std::vector<ByteEdge>& reads(Node node) const { return at(node).reads; }
  const std::vector<Node>& skips(Node node) const { return at(node).skips; }
  const std::vector<Call>& calls(Node node) const { return at(node).calls; }
  size_t num_nodes() const { return nodes_.size(); }

 private:
  struct NodeEdges {
    std::vector<ByteEdge> reads;
    std::vector<Node> skips;
    std::vector<Call> calls;
    bool is_end = false;  // of its rule
  };
  struct RuleEnds {
    Node begin, end;
  };

  const NodeEdges& at(Node node) const { return nodes_[static_cast<size_t>(node)]; }
  void remove_dead_ends();
  Result<void> check_calls() const;
  std::vector<bool> rules_that_may_be_empty() const;
  bool may_be_empty(Rule rule, const std::vector<bool>& empty) const;
  std::vector<Rule> called_first(Rule rule, const std::vector<bool>& empty) const;

  std::vector<NodeEdges> nodes_;
  std::vector<RuleEnds> rules_;
  Rule start_ = 0;
  bool full_ = false;
};

}  // namespace runahead::grammar
