#include "model/grammar/grammar_walk.h"

#include <algorithm>
#include <set>

#include "base/limits.h"

namespace runahead::grammar {

GrammarWalk::GrammarWalk(std::shared_ptr<const Automaton> automaton) : automaton_(std::move(automaton)) { forget(); }

void GrammarWalk::forget() {
  stacks_.clear();
  stack_of_.clear();
  places_.clear();
  place_of_.clear();
  start_ = find_place({stack(automaton_->begin(automaton_->start()), kEmpty)});
}

bool GrammarWalk::holds(size_t places) const {
  return places_.size() >= places || stacks_.size() >= places * limits::kGrammarStacksAPlace;
}
bool GrammarWalk::crowded() const { return holds(limits::kGrammarPlacesMax); }
bool GrammarWalk::full() const { return holds(4 * limits::kGrammarPlacesMax); }

GrammarWalk::Stack GrammarWalk::stack(Node node, Stack below) {
  ++stacks_made_;
  const auto [found, is_new] = stack_of_.try_emplace(Frame{node, below}, static_cast<Stack>(stacks_.size()));
  if (is_new) stacks_.push_back({node, below});
  return found->second;
}

GrammarWalk::Place GrammarWalk::find_place(std::vector<Stack> open) {
  std::set<Stack> seen(open.begin(), open.end());
  std::vector<Stack> reading;
  bool may_end = false;
  const auto enter = [&](Node node, Stack below) {
    const Stack entered = stack(node, below);
    if (seen.insert(entered).second) open.push_back(entered);
  };
  while (!open.empty()) {
    if (seen.size() > limits::kGrammarStacksMax) return kNowhere;
    const Stack top = open.back();
    open.pop_back();
    const Frame frame = stacks_[static_cast<size_t>(top)];
    if (!automaton_->reads(frame.node).empty()) reading.push_back(top);
    for (const Node to : automaton_->skips(frame.node)) enter(to, frame.below);
    for (const Automaton::Call& call : automaton_->calls(frame.node))
      enter(automaton_->begin(call.rule), stack(call.to, frame.below));
    if (!automaton_->is_end(frame.node)) continue;
    if (frame.below == kEmpty) may_end = true;
    else if (seen.insert(frame.below).second) open.push_back(frame.below);
  }
  if (reading.empty() && !may_end) return kNowhere;
  std::ranges::sort(reading);
  const auto [found, is_new] = place_of_.try_emplace({reading, may_end}, static_cast<Place>(places_.size()));
  if (!is_new) return found->second;
  PlaceStacks& place = places_.emplace_back();
  place.stacks = std::move(reading);
  place.may_end = may_end;
  place.steps.fill(kUnknown);
  return found->second;
}

GrammarWalk::Place GrammarWalk::find_step(Place place, uint8_t byte) {
  std::vector<Stack> behind;
  for (const Stack top : places_[static_cast<size_t>(place)].stacks) {
    const Frame frame = stacks_[static_cast<size_t>(top)];
    for (const Automaton::ByteEdge& edge : automaton_->reads(frame.node))
      if (edge.low <= byte && byte <= edge.high) behind.push_back(stack(edge.to, frame.below));
  }
  const Place next = behind.empty() ? kNowhere : find_place(std::move(behind));
  places_[static_cast<size_t>(place)].steps[byte] = next;
  return next;
}

}  // namespace runahead::grammar
