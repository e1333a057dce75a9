// SpecialTokenMatcher: finds tokens that are taken out of a text before it is split: control tokens (<|im_start|>) and
// user-defined ones. At each place the longest wins, in time linear in the longest token. Private to model/tokenizer.
//   threads  const once built.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "model/model_config.h"

namespace runahead {

class SpecialTokenMatcher {
 public:
  struct Match {
    TokenId id = kNoToken;
    size_t bytes = 0;  // 0: none
  };

  // takes_spaces: the spaces and line ends behind it belong to it, up to a longer token.
  void add(std::string_view text, TokenId id, bool is_control, bool takes_spaces = false);
  // The longest token that `text` begins with; control tokens only if asked for.
  Match match(std::string_view text, bool with_control) const;

 private:
  struct Node {
    TokenId id = kNoToken;
    bool is_control = false;
    bool takes_spaces = false;
  };
  struct Found {
    Match match;
    bool takes_spaces = false;
  };
  Found longest(std::string_view text, bool with_control) const;
  static uint64_t edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

  std::vector<Node> nodes_{1};                    // a trie; 0 is its root
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  bool begins_[256] = {};                         // bytes that a token begins with
};

}  // namespace runahead
