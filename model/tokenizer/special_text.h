// SpecialTokenMatcher: finds tokens that are taken out of a text before it is split: control tokens (<|im_start|>) and
// user-defined ones. The leftmost wins, of those that begin together the longest, in time linear in the longest token. Private to
// model/tokenizer.
//   threads  const once built.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "model/model_config.h"

namespace runahead {

// What belongs to a token besides its own text: in GGUF files as in llama.cpp, in folders as in Hugging Face's `tokenizers`.
struct TokenSurroundings {
  bool takes_ascii_spaces = false;  // llama.cpp's: the spaces and line ends behind it, up to a longer token
  bool lstrip = false, rstrip = false;  // what is White_Space to Unicode before it, behind it
  bool single_word = false;  // no letter, digit, mark or connector may stand beside it

  bool operator==(const TokenSurroundings&) const = default;
};

class SpecialTokenMatcher {
 public:
  struct Match {
    TokenId id = kNoToken;  // none: begin, end and the text's end are one
    size_t begin = 0,
           end = 0;  // with the spaces that it takes. end <= the begin of what is searched: it lies in the spaces taken
    size_t own_begin = 0, own_end = 0;  // without them
    size_t resume = 0;  // where the search goes on: tokens may begin in spaces that one before has taken
  };

  void add(std::string_view text, TokenId id, bool is_control, const TokenSurroundings& surroundings = {});
  // The first token that begins at or behind `from`; control tokens only if asked for. What is before `taken` belongs to the
  // tokens before, and is not taken once more.
  Match next(std::string_view text, size_t from, size_t taken, bool with_control) const;

 private:
  struct Node {
    TokenId id = kNoToken;
    bool is_control = false;
    TokenSurroundings surroundings;
  };
  struct Found {
    const Node* node = nullptr;
    size_t bytes = 0;  // 0: none
  };
  Found longest(std::string_view text, bool with_control) const;
  size_t end_of_ascii_spaces(std::string_view text, size_t at, size_t token_bytes, bool with_control) const;
  static uint64_t edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

  std::vector<Node> nodes_{1};  // a trie; 0 is its root
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  bool begins_[256] = {};  // bytes that a token begins with
};

}  // namespace runahead
