// CharsMap: SentencePiece's compiled rules of normalising (`tokenizer.ggml.precompiled_charsmap`): the longest beginning of a
// text that has a rule becomes the rule's right side. Private to model/tokenizer.
//   format   u32 size of the trie in bytes; the trie, a double array of u32 (darts-clone: bits 0 to 7 label, 8 has a value,
//            9 to 30 offset of the children, 31 the unit is a value); right sides, each ended by a zero byte. Little-endian.
//   threads  const after load.
//   limits   a wrong offset ends the search, wherever it points; a rule's left side has at most kRuleBytesMax bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

class CharsMap {
 public:
  static constexpr size_t kRuleBytesMax = 256;  // SentencePiece's own rules: under 40

  CharsMap() = default;  // no rules
  // kInvalidModel for a blob that is cut short.
  static Result<CharsMap> load(std::span<const std::byte> blob);

  struct Match {
    size_t bytes = 0;  // of the text; 0: no rule begins it
    std::string_view becomes;
  };
  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool first) const;

  std::vector<uint32_t> units_;
  std::string right_sides_;
};

}  // namespace runahead
