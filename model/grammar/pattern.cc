#include "model/grammar/pattern.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/limits.h"
#include "base/utf8.h"
#include "model/grammar/code_points.h"

namespace runahead::grammar {
namespace {

constexpr int kUnbounded = -1;

// An expression, parsed.
struct Expression {
  enum class Kind { kSet, kSequence, kEither, kRepeat } kind = Kind::kSequence;
  CodePoints set;
  std::vector<Expression> parts;  // kRepeat: one
  int least = 0, most = kUnbounded;
};

std::unexpected<Error> malformed(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "is no regular expression: " + what);
}
std::unexpected<Error> not_built(const std::string& what) {
  return fail(ErrorCode::kUnsupported, "uses " + what + ", which is not supported; write it another way");
}

CodePoints digits() { return {'0', '9'}; }
CodePoints word() {
  CodePoints set('0', '9');
  set.add('A', 'Z');
  set.add('a', 'z');
  set.add('_', '_');
  return set;
}
CodePoints space() {  // ECMAScript's white space and line ends
  CodePoints set('\t', '\r');
  constexpr std::array kSingle = {0x20u, 0xA0u, 0x1680u, 0x2028u, 0x2029u, 0x202Fu, 0x205Fu, 0x3000u, 0xFEFFu};
  for (const uint32_t point : kSingle) set.add(point, point);
  set.add(0x2000, 0x200A);
  return set;
}
CodePoints any_but_line_ends() {
  CodePoints ends('\n', '\n');
  ends.add('\r', '\r');
  ends.add(0x2028, 0x2029);
  return ends.others();
}
Expression one_of(CodePoints set) { return {.kind = Expression::Kind::kSet, .set = std::move(set)}; }
Expression anything() {
  Expression repeat{.kind = Expression::Kind::kRepeat};
  repeat.parts.push_back(one_of({0, CodePoints::kMax}));
  return repeat;
}

class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) {}

  // Alternatives at the top find their text anywhere, unless ^ and $ hold them.
  Result<Expression> parse() {
    if (utf8_valid_prefix(text_) < text_.size()) return malformed("it is no UTF-8");
    Expression either{.kind = Expression::Kind::kEither};
    do {
      Expression found{.kind = Expression::Kind::kSequence};
      if (!skip('^')) found.parts.push_back(anything());
      found.parts.push_back(TRY(sequence()));
      if (!skip('$')) found.parts.push_back(anything());
      either.parts.push_back(std::move(found));
    } while (skip('|'));
    if (at_ < text_.size())
      return text_[at_] == ')' ? malformed("a ) has no (") : not_built("^ or $ inside the expression");
    return either;
  }

 private:
  bool at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool skip(char c) {
    if (!at(c)) return false;
    ++at_;
    return true;
  }

  // Behind a sequence stands the end, or one of | ) $ ^.
  Result<Expression> sequence() {
    Expression all{.kind = Expression::Kind::kSequence};
    while (at_ < text_.size() && !at('|') && !at(')') && !at('$') && !at('^'))
      all.parts.push_back(TRY(repeated(TRY(term()))));
    return all;
  }
  Result<Expression> term() {
    if (skip('(')) return group();
    if (skip('[')) return one_of(TRY(set()));
    if (skip('.')) return one_of(any_but_line_ends());
    if (skip('\\')) return one_of(TRY(escape()));
    if (at('*') || at('+') || at('?') || at('{') || at('}') || at(']'))
      return malformed(std::string("a ") + text_[at_] + " has nothing to repeat or end; put a \\ before it");
    const uint32_t point = character();
    return one_of({point, point});
  }
  Result<Expression> group() {
    if (++depth_ > limits::kGrammarPatternDepthMax) return malformed("it nests too deeply");
    if (skip('?') && !skip(':')) return not_built("a group with (?, which looks around or has a name");
    Expression either{.kind = Expression::Kind::kEither};
    do {
      either.parts.push_back(TRY(sequence()));
    } while (skip('|'));
    --depth_;
    if (skip(')')) return either;
    return at_ < text_.size() ? not_built("^ or $ inside the expression") : malformed("a ( has no )");
  }
  Result<Expression> repeated(Expression inner) {
    Expression repeat{.kind = Expression::Kind::kRepeat};
    if (skip('+')) {
      repeat.least = 1;
    } else if (skip('?')) {
      repeat.most = 1;
    } else if (skip('{')) {
      std::tie(repeat.least, repeat.most) = TRY(counts());
    } else if (!skip('*')) {
      return inner;
    }
    skip('?');  // which of several ways it takes is the same text
    repeat.parts.push_back(std::move(inner));
    return repeat;
  }
  // Behind {: "3}", "3,}", "3,5}".
  Result<std::pair<int, int>> counts() {
    const auto number = [this]() -> std::optional<int> {
      if (at_ >= text_.size() || text_[at_] < '0' || text_[at_] > '9') return {};
      int value = 0;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        value = std::min(value * 10 + (text_[at_] - '0'), limits::kGrammarRepeatMax + 1);
      return value;
    };
    const std::optional<int> least = number();
    if (!least) return malformed("a { has no number; put a \\ before it");
    int most = *least;
    if (skip(',')) most = number().value_or(kUnbounded);
    if (!skip('}')) return malformed("a { has no }");
    if (most != kUnbounded && most < *least)
      return malformed("{" + std::to_string(*least) + "," + std::to_string(most) + "}");
    if (std::max(most, *least) > limits::kGrammarRepeatMax)
      return not_built("more than " + std::to_string(limits::kGrammarRepeatMax) + " repetitions");
    return std::pair(*least, most);
  }

  // Behind a backslash.
  Result<CodePoints> escape() {
    if (at_ == text_.size()) return malformed("it ends with a \\");
    const char c = text_[at_];
    constexpr std::string_view kLetters = "tnvfr", kMeant = "\t\n\v\f\r";
    if (const size_t control = kLetters.find(c); control != std::string_view::npos) {
      ++at_;
      return point_set(static_cast<uint8_t>(kMeant[control]));
    }
    if (c == 'd' || c == 'D' || c == 'w' || c == 'W' || c == 's' || c == 'S') {
      ++at_;
      const CodePoints chosen = (c | 0x20) == 'd' ? digits() : (c | 0x20) == 'w' ? word() : space();
      return c >= 'a' ? chosen : chosen.others();
    }
    if (skip('x')) return point_set(TRY(hex(2)));
    if (skip('u')) return point_set(TRY(unicode_escape()));
    if (c == '0' && (at_ + 1 == text_.size() || text_[at_ + 1] < '0' || text_[at_ + 1] > '9'))
      return ++at_, point_set(0);
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) return not_built(std::string("\\") + c);
    return point_set(character());
  }
  static CodePoints point_set(uint32_t point) { return {point, point}; }
  Result<uint32_t> hex(size_t digits) {
    uint32_t value = 0;
    const std::string_view part = text_.substr(at_, digits);
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), value, 16);
    if (part.size() < digits || parsed.ec != std::errc() || parsed.ptr != part.data() + part.size())
      return malformed("a \\x or \\u has no digits");
    at_ += digits;
    return value;
  }
  Result<uint32_t> unicode_escape() {
    if (skip('{')) {
      const size_t end = text_.find('}', at_);
      if (end == std::string_view::npos || end == at_ || end - at_ > 6) return malformed("a \\u{ has no digits and }");
      const uint32_t point = TRY(hex(end - at_));
      ++at_;
      if (point > CodePoints::kMax) return malformed("a \\u{} is beyond 10FFFF");
      return point;
    }
    const uint32_t high = TRY(hex(4));
    if (high < 0xD800 || high > 0xDBFF || !text_.substr(at_).starts_with("\\u")) return high;
    at_ += 2;
    const uint32_t low = TRY(hex(4));
    if (low < 0xDC00 || low > 0xDFFF) return malformed("half of a pair of \\u");
    return 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00));
  }
  // Behind [.
  Result<CodePoints> set() {
    CodePoints chosen;
    const bool others = skip('^');
    while (!at(']')) {
      if (at_ == text_.size()) return malformed("a [ has no ]");
      const auto [first, single] = TRY(set_member());
      if (single && at('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const auto [last, last_single] = TRY(set_member());
        if (!last_single || *last_single < *single) return malformed("a range in [] runs backwards");
        chosen.add(*single, *last_single);
      } else {
        chosen.add(first);
      }
    }
    ++at_;
    return others ? chosen.others() : chosen;
  }
  // And the code point, if it is one.
  Result<std::pair<CodePoints, std::optional<uint32_t>>> set_member() {
    CodePoints member;
    if (at_ == text_.size()) return malformed("a [ has no ]");
    if (skip('\\')) {
      member = skip('b') ? point_set('\b') : skip('-') ? point_set('-') : TRY(escape());
    } else {
      member = point_set(character());
    }
    const auto ranges = member.ranges();
    const bool single = ranges.size() == 1 && ranges[0].first == ranges[0].second;
    return std::pair(member, single ? std::optional(ranges[0].first) : std::nullopt);
  }
  uint32_t character() {
    std::string_view rest = text_.substr(at_);
    const uint32_t point = take_code_point(rest);
    at_ = text_.size() - rest.size();
    return point;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

void write(Automaton& automaton, Node from, const Expression& expression, Node to);

void write_repeat(Automaton& automaton, Node from, const Expression& repeat, Node to) {
  const Expression& inner = repeat.parts.front();
  const auto once = [&](Node before) {
    const Node behind = automaton.node();
    write(automaton, before, inner, behind);
    return behind;
  };
  for (int i = 0; i < repeat.least && !automaton.full(); ++i) from = once(from);
  if (repeat.most == kUnbounded) {
    const Node loop = automaton.node();
    automaton.skip(from, loop);
    write(automaton, loop, inner, loop);
    from = loop;
  }
  for (int i = repeat.least; i < repeat.most && !automaton.full(); ++i) {
    automaton.skip(from, to);
    from = once(from);
  }
  automaton.skip(from, to);
}

void write(Automaton& automaton, Node from, const Expression& expression, Node to) {
  switch (expression.kind) {
    case Expression::Kind::kSet:
      return read_in_string(automaton, from, expression.set, to);
    case Expression::Kind::kRepeat:
      return write_repeat(automaton, from, expression, to);
    case Expression::Kind::kEither:
      for (const Expression& part : expression.parts) write(automaton, from, part, to);
      return;
    case Expression::Kind::kSequence:
      for (const Expression& part : expression.parts) {
        const Node behind = automaton.node();
        write(automaton, from, part, behind);
        from = behind;
      }
      return automaton.skip(from, to);
  }
}

}  // namespace

Result<void> read_pattern(Automaton& automaton, Node from, std::string_view pattern, Node to) {
  const Expression expression = TRY(PatternParser(pattern).parse());
  write(automaton, from, expression, to);
  return {};
}

}  // namespace runahead::grammar
