#include "model/tokenizer/text_steps.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "model/tokenizer/characters_of_words.h"
#include "model/tokenizer/sentence_pieces.h"

namespace runahead {
namespace {

// The rules of Google's NMT, as `tokenizers` has them.
bool is_dropped_by_nmt(char32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}
bool is_space_to_nmt(char32_t c) {
  return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
         c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

// Bounded: what is over the limit is said once, at the end.
class Output {
 public:
  void add(std::string_view text) {
    full_ = full_ || text.size() > kNormalBytesMax - out_.size();
    if (!full_) out_ += text;
  }
  bool full() const { return full_; }
  Result<std::string> take() {
    if (full_)
      return fail(ErrorCode::kTooLarge, "the model's rules of normalising make a text of more than " +
                                            std::to_string(kNormalBytesMax) +
                                            " bytes of this one; send a shorter text");
    return std::move(out_);
  }

 private:
  std::string out_;
  bool full_ = false;
};

// Normalization Form C or KC. Bytes that are no UTF-8 stay, with all that is around them.
std::string composed(std::string_view text, int options) {
  utf8proc_uint8_t* made = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, std::free);
  return size < 0 ? std::string(text) : std::string(reinterpret_cast<const char*>(made), static_cast<size_t>(size));
}

// How many bytes the grapheme at the start has: what one sees as a character.
size_t grapheme_bytes(std::string_view text) {
  const CharacterOfText first = first_character(text);
  if (!first.is_one) return 1;
  utf8proc_int32_t state = 0;
  auto before = static_cast<utf8proc_int32_t>(first.code);
  size_t bytes = first.bytes;
  while (bytes < text.size()) {
    const CharacterOfText next = first_character(text.substr(bytes));
    const auto code = static_cast<utf8proc_int32_t>(next.code);
    if (!next.is_one || utf8proc_grapheme_break_stateful(before, code, &state)) break;
    before = code;
    bytes += next.bytes;
  }
  return bytes;
}

// `tokenizers` asks for a short grapheme at once, and then for its characters; what begins with a rule's left side becomes the
// right side as a whole. SentencePiece takes the longest rule wherever one begins.
void map_characters(const CharsMap& rules, std::string_view text, Output& out) {
  constexpr size_t kShortBytesMax = 5;
  while (!text.empty() && !out.full()) {
    const std::string_view grapheme = text.substr(0, grapheme_bytes(text));
    text.remove_prefix(grapheme.size());
    const CharsMap::Match whole = grapheme.size() <= kShortBytesMax ? rules.shortest(grapheme) : CharsMap::Match{};
    if (whole.bytes > 0) {
      out.add(whole.becomes);
      continue;
    }
    for (std::string_view rest = grapheme; !rest.empty();) {
      const std::string_view one = rest.substr(0, first_character(rest).bytes);
      const CharsMap::Match rule = rules.shortest(one);
      out.add(rule.bytes > 0 ? rule.becomes : one);
      rest.remove_prefix(one.size());
    }
  }
}

void apply_nmt(std::string_view text, Output& out) {
  while (!text.empty()) {
    const CharacterOfText c = first_character(text);
    if (!c.is_one || !is_dropped_by_nmt(c.code))
      out.add(c.is_one && is_space_to_nmt(c.code) ? " " : text.substr(0, c.bytes));
    text.remove_prefix(c.bytes);
  }
}

void replace(std::string_view text, std::string_view from, std::string_view to, Output& out) {
  for (size_t at; !out.full() && (at = text.find(from)) != std::string_view::npos;) {
    out.add(text.substr(0, at));
    out.add(to);
    text.remove_prefix(at + from.size());
  }
  out.add(text);
}

// Of two and more spaces.
void replace_runs(std::string_view text, std::string_view to, Output& out) {
  for (size_t at; !out.full() && (at = text.find("  ")) != std::string_view::npos;) {
    out.add(text.substr(0, at));
    out.add(to);
    text.remove_prefix(std::min(text.find_first_not_of(' ', at), text.size()));
  }
  out.add(text);
}

// Spaces at both ends.
void trim(std::string_view text, std::string_view to, Output& out) {
  const size_t begin = std::min(text.find_first_not_of(' '), text.size());
  if (begin > 0) out.add(to);
  const size_t end = text.find_last_not_of(' ') + 1;  // npos + 1: nothing but spaces
  if (end > begin) out.add(text.substr(begin, end - begin));
  if (end > begin && end < text.size()) out.add(to);
}

}  // namespace

Result<TextSteps> TextSteps::load(const Gguf& file) {
  constexpr const char* kRules = "tokenizer.ggml.precompiled_charsmap";
  TextSteps made;
  TRY(made.load_steps(TRY(file.strings("runahead.tokenizer.steps"))));
  if (file.has(kRules)) made.rules_ = TRY(CharsMap::load(TRY(file.bytes(kRules))));
  for (const std::string_view word : TRY(file.strings("runahead.tokenizer.words"))) {
    if (word == "drop_whitespace") made.drops_whitespace_ = true;
    else if (word == "replace_spaces") made.replaces_spaces_ = true;
    else if (word == "prefix_first") made.prefix_ = Prefix::kFirst;
    else if (word == "prefix_each") made.prefix_ = Prefix::kEach;
    else if (word == "cut_at_spaces") made.cut_ = Cut::kAtSpaces;
    else return bad_tokenizer("cuts words in an unknown way");
  }
  return made;
}

Result<void> TextSteps::load_steps(const std::vector<std::string_view>& texts) {
  constexpr std::pair<std::string_view, Kind> kKinds[] = {{"charsmap", Kind::kCharsMap},
                                                          {"nmt", Kind::kNmt},
                                                          {"nfc", Kind::kNfc},
                                                          {"nfkc", Kind::kNfkc},
                                                          {"strip_left", Kind::kStripLeft},
                                                          {"strip_right", Kind::kStripRight},
                                                          {"replace", Kind::kReplace},
                                                          {"replace_runs", Kind::kReplaceRuns},
                                                          {"trim", Kind::kTrim},
                                                          {"replace_first", Kind::kReplaceFirst},
                                                          {"prepend", Kind::kPrepend}};
  if (texts.size() % 3 != 0 || texts.size() > 3 * kStepsMax) return bad_tokenizer("has more steps than a limit allows");
  for (size_t i = 0; i < texts.size(); i += 3) {
    const auto* found = std::ranges::find(kKinds, texts[i], [](const auto& one) { return one.first; });
    if (found == std::end(kKinds)) return bad_tokenizer("normalises in an unknown way");
    const bool searches = found->second == Kind::kReplace || found->second == Kind::kReplaceFirst;
    if (searches && texts[i + 1].empty()) return bad_tokenizer("replaces nothing by something");
    prepends_ = prepends_ || found->second == Kind::kPrepend;
    steps_.push_back({found->second, std::string(texts[i + 1]), std::string(texts[i + 2])});
  }
  return {};
}

Result<std::string> TextSteps::run(const Step& step, std::string_view text) const {
  Output out;
  switch (step.kind) {
    case Kind::kCharsMap:
      map_characters(rules_, text, out);
      break;
    case Kind::kNmt:
      apply_nmt(text, out);
      break;
    case Kind::kNfc:
    case Kind::kNfkc:
      out.add(composed(text, step.kind == Kind::kNfc ? 0 : UTF8PROC_COMPAT));
      break;
    case Kind::kStripLeft:
      out.add(without_spaces_left(text));
      break;
    case Kind::kStripRight:
      out.add(without_spaces_right(text));
      break;
    case Kind::kReplace:
      replace(text, step.from, step.to, out);
      break;
    case Kind::kReplaceRuns:
      replace_runs(text, step.to, out);
      break;
    case Kind::kTrim:
      trim(text, step.to, out);
      break;
    case Kind::kReplaceFirst:
      out.add(text.starts_with(step.from) ? step.to : "");
      out.add(text.substr(text.starts_with(step.from) ? step.from.size() : 0));
      break;
    case Kind::kPrepend:
      out.add(text.empty() ? "" : step.to);
      out.add(text);
      break;
  }
  return out.take();
}

void TextSteps::add_word(std::string_view word, size_t offset, Words& out) const {
  std::string spelled;
  if (replaces_spaces_) append_with_space_symbols(word, spelled);
  else spelled = word;
  const bool wanted = prefix_ == Prefix::kEach || (prefix_ == Prefix::kFirst && offset == 0);
  if (wanted && !spelled.starts_with(kSpaceSymbol)) spelled.insert(0, kSpaceSymbol);
  const size_t begin = out.text.size();
  out.begins.push_back(begin);
  out.text += spelled;
  if (cut_ == Cut::kNone) return;
  for (size_t at = spelled.find(kSpaceSymbol, 1); at != std::string::npos; at = spelled.find(kSpaceSymbol, at + 1))
    out.begins.push_back(begin + at);
}

Result<std::string> TextSteps::normalised(std::string_view text) const {
  std::string normal(text);
  for (const Step& step : steps_) normal = TRY(run(step, normal));
  return normal;
}

TextSteps::Words TextSteps::words(std::string_view normal, size_t offset) const {
  Words out;
  if (!drops_whitespace_) {
    if (!normal.empty()) add_word(normal, offset, out);
    return out;
  }
  for (std::string_view rest = without_spaces_left(normal); !rest.empty(); rest = without_spaces_left(rest)) {
    size_t end = 0;
    while (end < rest.size()) {
      const CharacterOfText c = first_character(rest.substr(end));
      if (c.is_one && is_white_space(c.code)) break;
      end += c.bytes;
    }
    add_word(rest.substr(0, end), offset, out);
    rest.remove_prefix(end);
  }
  return out;
}

}  // namespace runahead
