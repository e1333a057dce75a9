// IncrementalDetokenizer: the tokens of one choice as text that may be shown. It holds back what could still change: bytes of a
// UTF-8 character that is not whole yet, and text that could be the beginning of a stop string. At a stop string the
// text ends exactly before it; of several the one that ends first counts, of those that end together the longest, so
// that the cut does not depend on the tokens. Bytes that are no UTF-8 become U+FFFD.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/sampling_params.h"
#include "services/gateway/answer/tool_delta.h"

namespace runahead {

struct ShownToken {
  SampledToken sampled;
  int64_t offset = 0;  // characters of the answer that end at or before the token's first byte
};

struct TextPiece {
  std::string text;  // valid UTF-8
  std::vector<ShownToken> tokens;  // whose text begins in it, in order
  bool stopped = false;  // a stop string was found: nothing may follow
  std::string stop;  // that one
  std::optional<ToolDelta> call;  // a part of one, and no text (tool_sink.h)
};

class IncrementalDetokenizer {
 public:
  // The text of the first `min_tokens` tokens is no part of a stop string. shown: what tokens stand for that have no bytes.
  explicit IncrementalDetokenizer(std::vector<std::string> stop_strings, int32_t min_tokens = 0,
                                  std::map<TokenId, std::string> shown = {})
      : stop_strings_(std::move(stop_strings)), unstoppable_(min_tokens), shown_(std::move(shown)) {}

  TextPiece push(const SampledToken& token, std::string bytes);
  // The end without a stop string: everything that was held back.
  TextPiece flush();

 private:
  struct HeldToken {
    SampledToken token;
    size_t begin;  // bytes of the whole answer
    size_t end;
  };
  TextPiece release(size_t bytes, bool stopped);
  size_t held_back() const;

  std::vector<std::string> stop_strings_;
  int32_t unstoppable_;  // tokens to come that no stop string ends
  std::map<TokenId, std::string> shown_;
  std::string pending_;  // received, not yet released
  size_t released_ = 0;  // bytes before pending_
  int64_t characters_ = 0;  // the same in characters as they are shown
  std::deque<HeldToken> tokens_;  // not yet released; at most one a byte of pending_, and empty ones
};

}  // namespace runahead
