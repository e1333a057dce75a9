// GrammarWalk: reads bytes by an automaton. All that the automaton may be in the middle of is one place; places and the steps
// between them are remembered as they are met, so that most steps are one look into a table.
//   threads  one at a time.
//   memory   from limits::kGrammarPlacesMax places on, 1 KiB each and its stacks, it is crowded(): its owner makes it forget all,
//            and whoever holds a place reads its text again from start().
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

class GrammarWalk {
 public:
  using Place = int32_t;  // its index
  static constexpr Place kNowhere = -1;  // no text of the grammar begins like this

  explicit GrammarWalk(std::shared_ptr<const Automaton> automaton);

  Place start() const { return start_; }
  // kNowhere stays kNowhere. So ambiguous a grammar that a place would have more than limits::kGrammarStacksMax stacks leads
  // there, too: its text is cut short of what it could be, and is right as far as it goes.
  Place read(Place place, uint8_t byte) {
    if (place == kNowhere) return kNowhere;
    const Place known = places_[static_cast<size_t>(place)].steps[byte];
    return known != kUnknown ? known : find_step(place, byte);
  }
  Place read(Place place, std::string_view bytes) {
    for (const char byte : bytes) place = read(place, static_cast<uint8_t>(byte));
    return place;
  }
  bool may_end(Place place) const { return place != kNowhere && places_[static_cast<size_t>(place)].may_end; }

  bool crowded() const;  // time to forget
  bool full() const;  // four times as much: one question was too much
  void forget();
  uint64_t stacks_made() const { return stacks_made_; }  // a measure of work

 private:
  static constexpr Place kUnknown = -2;
  using Stack = int32_t;  // its index in stacks_
  static constexpr Stack kEmpty = -1;
  struct Frame {
    Node node;
    Stack below;  // where the rule returns to
    auto operator<=>(const Frame&) const = default;
  };
  struct PlaceStacks {
    std::vector<Stack> stacks;  // those whose top reads a byte, ascending
    bool may_end = false;
    std::array<Place, 256> steps;
  };

  bool holds(size_t places) const;
  Stack stack(Node node, Stack below);
  // The place of these stacks and all that is reached from them without a byte.
  Place find_place(std::vector<Stack> open);
  Place find_step(Place place, uint8_t byte);

  std::shared_ptr<const Automaton> automaton_;
  std::vector<Frame> stacks_;
  std::map<Frame, Stack> stack_of_;
  std::vector<PlaceStacks> places_;
  std::map<std::pair<std::vector<Stack>, bool>, Place> place_of_;
  Place start_ = kNowhere;
  uint64_t stacks_made_ = 0;
};

}  // namespace runahead::grammar
