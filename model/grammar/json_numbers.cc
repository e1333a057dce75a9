#include "model/grammar/json_numbers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <tuple>

namespace runahead::grammar {
namespace {

constexpr Node kDead = -1;
constexpr int kExponentDigits = 2;  // with kWholeDigits still a double: 2E351 is JSON that most readers refuse

// Numbers from 0 up. No high bound: up to all digits.
struct Side {
  std::optional<Bound> low, high;
};

// Of a side's numbers, those with `whole_digits` digits before the point. Its states: how many digits were read, and whether
// they are those of the low or the high bound so far; only then does the next digit have to look at that bound.
class DigitReader {
 public:
  DigitReader(Automaton& automaton, const Side& side, int whole_digits, int fraction_digits, Node to)
      : automaton_(automaton), side_(side), whole_(whole_digits), digits_(whole_digits + fraction_digits), to_(to) {}

  // False if there are none.
  bool read(Node from) {
    const int low = side_.low ? length(*side_.low) : 0, high = side_.high ? length(*side_.high) : kWholeDigits + 1;
    if (whole_ < low || whole_ > high) return false;
    const Node first = enter({.at_low = whole_ == low, .at_high = whole_ == high});
    if (first != kDead) automaton_.skip(from, first);
    return first != kDead;
  }

 private:
  struct State {
    int read = 0;
    bool point = false;
    bool at_low = false, at_high = false;
    auto operator<=>(const State&) const = default;
  };

  static int length(const Bound& bound) { return std::max<int>(static_cast<int>(bound.whole.size()), 1); }
  static int digit(const Bound& bound, int place) {  // "0" alone is the empty text
    const auto at = static_cast<size_t>(bound.whole.empty() ? place - 1 : place);
    const std::string digits = bound.whole + bound.fraction;
    return (bound.whole.empty() && place == 0) || at >= digits.size() ? 0 : digits[at] - '0';
  }
  // The digits so far are the bound's: is what they say within it, if no more come?
  bool within(const Bound& bound, int read, bool more_is_out) const {
    for (int place = read; place < digits_ || place < whole_ + kFractionDigits; ++place)
      if (digit(bound, place) != 0) return more_is_out;
    return bound.inclusive;
  }
  bool may_end(const State& state) const {
    return state.read >= whole_ && (!state.point || state.read > whole_) &&
           (!state.at_low || within(*side_.low, state.read, false)) &&
           (!state.at_high || within(*side_.high, state.read, true));
  }
  // The node of a state; kDead if no number ends behind it.
  Node enter(const State& state) {
    if (const auto known = nodes_.find(state); known != nodes_.end()) return known->second;
    const Node node = automaton_.node();
    bool alive = may_end(state);
    if (alive) automaton_.skip(node, to_);
    if (state.read == whole_ && !state.point && digits_ > whole_) {
      State behind = state;
      behind.point = true;
      if (const Node next = enter(behind); next != kDead) automaton_.read(node, '.', '.', next), alive = true;
    } else if (state.read < digits_ && (state.read < whole_ || state.point)) {
      alive |= read_digit(node, state);
    }
    return nodes_[state] = alive ? node : kDead;
  }
  bool read_digit(Node node, const State& state) {
    bool alive = false;
    for (int d = state.read == 0 && whole_ > 1 ? 1 : 0; d <= 9; ++d) {
      const int low = state.at_low ? digit(*side_.low, state.read) : 0;
      const int high = state.at_high ? digit(*side_.high, state.read) : 9;
      if (d < low || d > high) continue;
      const Node next = enter({.read = state.read + 1,
                               .point = state.point,
                               .at_low = state.at_low && d == low,
                               .at_high = state.at_high && d == high});
      if (next == kDead) continue;
      automaton_.read(node, static_cast<uint8_t>('0' + d), static_cast<uint8_t>('0' + d), next);
      alive = true;
    }
    return alive;
  }

  Automaton& automaton_;
  const Side& side_;
  int whole_, digits_;  // before the point, and in all
  Node to_;
  std::map<State, Node> nodes_;
};

bool read_side(Automaton& automaton, Node from, const Side& side, int fraction_digits, Node to) {
  bool any = false;
  for (int whole = 1; whole <= kWholeDigits; ++whole)
    any |= DigitReader(automaton, side, whole, fraction_digits, to).read(from);
  return any;
}

Node digits(Automaton& automaton, Node from, int most) {  // none to `most`
  const Node behind = automaton.node();
  for (int i = 0; i < most; ++i) {
    automaton.skip(from, behind);
    const Node next = automaton.node();
    automaton.read(from, '0', '9', next);
    from = next;
  }
  automaton.skip(from, behind);
  return behind;
}

Node one_digit(Automaton& automaton, Node from, uint8_t low) {
  const Node to = automaton.node();
  automaton.read(from, low, '9', to);
  return to;
}

void read_any_number(Automaton& automaton, Node from, bool whole, Node to) {
  const Node positive = automaton.text(from, "-"), behind_whole = automaton.node();
  automaton.skip(from, positive);
  automaton.skip(automaton.text(positive, "0"), behind_whole);
  automaton.skip(digits(automaton, one_digit(automaton, positive, '1'), kWholeDigits - 1), behind_whole);
  automaton.skip(behind_whole, to);
  if (whole) return;
  const Node point = automaton.text(behind_whole, "."), exponent = automaton.node();
  const Node behind_fraction = digits(automaton, one_digit(automaton, point, '0'), kFractionDigits - 1);
  automaton.skip(behind_fraction, to);
  for (const Node before : {behind_whole, behind_fraction}) {
    automaton.read(before, 'e', 'e', exponent);
    automaton.read(before, 'E', 'E', exponent);
  }
  const Node sign = automaton.node();
  automaton.skip(exponent, sign);
  automaton.read(exponent, '+', '+', sign);
  automaton.read(exponent, '-', '-', sign);
  automaton.skip(digits(automaton, one_digit(automaton, sign, '0'), kExponentDigits - 1), to);
}

Bound without_sign(Bound bound) {
  bound.negative = false;
  return bound;
}

}  // namespace

Result<Bound> Bound::parse(const std::string& value, bool inclusive) {
  Bound bound{.negative = value.starts_with('-'), .inclusive = inclusive};
  const std::string_view text = std::string_view(value).substr(bound.negative ? 1 : 0);
  const size_t e = std::min(text.find_first_of("eE"), text.size());
  const size_t point = std::min(text.find('.'), e);
  int exponent = 0;
  const size_t sign = e + 1 < text.size() && text[e + 1] == '+' ? 2 : 1;
  if (e < text.size()) std::from_chars(text.data() + e + sign, text.data() + text.size(), exponent);
  const std::string_view behind = text.substr(std::min(point + 1, e), e - std::min(point + 1, e));
  std::string all = std::string(text.substr(0, point)) + std::string(behind);
  const int whole = static_cast<int>(point) + exponent;  // digits of `all` before the point
  constexpr int kFar = kWholeDigits + kFractionDigits;
  if (whole > -kFar && whole < kFar) {
    if (whole < 0) all.insert(0, static_cast<size_t>(-whole), '0');
    const auto cut = static_cast<size_t>(std::max(whole, 0));
    all.resize(std::max(all.size(), cut), '0');
    bound.whole = all.substr(0, cut);
    bound.whole.erase(0, std::min(bound.whole.find_first_not_of('0'), bound.whole.size()));
    bound.fraction = all.substr(cut);
    bound.fraction.erase(bound.fraction.find_last_not_of('0') + 1);
  }
  if (whole <= -kFar || whole >= kFar || bound.whole.size() > kWholeDigits || bound.fraction.size() > kFractionDigits)
    return fail(ErrorCode::kUnsupported, "has more than " + std::to_string(kWholeDigits) +
                                             " digits before the point or " + std::to_string(kFractionDigits) +
                                             " behind it");
  if (bound.whole.empty() && bound.fraction.empty()) bound.negative = false;
  return bound;
}

Result<void> read_number(Automaton& automaton, Node from, const NumberRange& range, Node to) {
  if (!range.low && !range.high) return read_any_number(automaton, from, range.whole, to), Result<void>{};
  const int fraction_digits = range.whole ? 0 : kFractionDigits;
  bool any = false;
  if (!range.high || !range.high->negative) {
    Side side{.high = range.high};
    if (range.low && !range.low->negative) side.low = range.low;
    any |= read_side(automaton, from, side, fraction_digits, to);
  }
  if (!range.low || range.low->negative) {  // below 0: the same with a sign, and the bounds change places
    Side side{.low = Bound{.inclusive = false}};
    if (range.high && range.high->negative) side.low = without_sign(*range.high);
    if (range.low) side.high = without_sign(*range.low);
    const Node minus = automaton.node();
    if (read_side(automaton, minus, side, fraction_digits, to)) automaton.read(from, '-', '-', minus), any = true;
  }
  if (any) return {};
  return fail(ErrorCode::kInvalidArgument, "leaves no number");
}

}  // namespace runahead::grammar
