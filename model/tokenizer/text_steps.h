// TextSteps: what a folder's tokenizer.json does to a text before its unigram model sees it (model/weights/hf_unigram.cc
// writes it down as keys): the normaliser's steps in their order, then how words are cut. As `tokenizers` does it, also where
// SentencePiece does otherwise. Private to model/tokenizer.
//   threads  const once loaded.
//   limits   kStepsMax; no step makes a text longer than kNormalBytesMax.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "model/tokenizer/charsmap.h"
#include "model/weights/gguf.h"

namespace runahead {

inline constexpr size_t kNormalBytesMax = 4 * limits::kTextBytesMax;  // SentencePiece's own rules at most double a text

class TextSteps {
 public:
  static constexpr size_t kStepsMax = 64;  // files have up to five

  // kInvalidModel for steps that there are not.
  static Result<TextSteps> load(const Gguf& file);

  struct Words {
    std::string text;
    std::vector<size_t> begins;  // in it, of each word; ascending
  };
  // The normaliser's steps. kTooLarge.
  Result<std::string> normalised(std::string_view text) const;
  // Of a normalised text, which begins at `offset` of the whole one: at its start or behind a special token.
  Words words(std::string_view normal, size_t offset) const;

  bool adds_space() const { return prefix_ == Prefix::kEach || prepends_; }
  bool adds_space_to_normal() const { return prefix_ == Prefix::kEach; }
  bool adds_first_space() const { return prefix_ == Prefix::kFirst; }

 private:
  enum class Kind {
    kCharsMap,
    kNmt,
    kNfc,
    kNfkc,
    kStripLeft,
    kStripRight,
    kReplace,
    kReplaceRuns,
    kTrim,
    kReplaceFirst,
    kPrepend
  };
  enum class Prefix { kNone, kFirst, kEach };  // which words get a space in front, unless it is there
  enum class Cut { kNone, kAtSpaces };  // words keep the space before them
  struct Step {
    Kind kind;
    std::string from, to;
  };

  Result<void> load_steps(const std::vector<std::string_view>& texts);
  Result<std::string> run(const Step& step, std::string_view text) const;
  void add_word(std::string_view word, size_t offset, Words& out) const;

  std::vector<Step> steps_;
  CharsMap rules_;
  bool prepends_ = false, drops_whitespace_ = false, replaces_spaces_ = false;
  Prefix prefix_ = Prefix::kNone;
  Cut cut_ = Cut::kNone;
};

}  // namespace runahead
