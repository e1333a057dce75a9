// PreTokenizer: cuts a text into the pieces within which byte pairs are merged. The cuts are the regular expressions
// that the models were trained with, run by PCRE2; the file names the set (tokenizer.ggml.pre). Private to
// model/tokenizer.
//   threads  const after load; split may run on any number of threads at once.
//   limits   time is linear in the text for every expression here; PCRE2's own step limit is a second fence.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

class PreTokenizer {
 public:
  // kUnsupported, naming the sets we have, for any other name.
  static Result<PreTokenizer> load(std::string_view name);
  // The set of these expressions, for files that tell them instead of a name; kUnsupported if we have none.
  static Result<PreTokenizer> of(std::span<const std::string_view> expressions, bool ignore_merges);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  // Appends views that together are `text`, in order. Bytes that are no valid UTF-8 make pieces of their own.
  Result<void> split(std::string_view text, std::vector<std::string_view>& pieces) const;
  // A piece that is a token as a whole is taken as that token, whatever the merges say.
  bool ignore_merges() const { return ignore_merges_; }
  // What add_bos_token means in a file that lacks it.
  bool adds_bos() const { return adds_bos_; }

 private:
  class Expression;  // one compiled pattern
  class Matcher;     // what one thread needs to run them

  PreTokenizer() = default;

  std::vector<std::unique_ptr<const Expression>>
      expressions_;  // applied one after the other, each to the last one's pieces
  bool ignore_merges_ = false;
  bool adds_bos_ = false;
};

}  // namespace runahead
