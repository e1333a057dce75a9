#include "services/gateway/echoed_prompt.h"

#include <utility>

namespace runahead {

std::vector<int64_t> token_offsets(std::string_view text, std::span<const TokenId> tokens, const TextCodec& codec) {
  std::vector<int64_t> offsets;
  offsets.reserve(tokens.size());
  IncrementalDetokenizer shown({});
  const auto take = [&](const TextPiece& piece) {
    for (const ShownToken& token : piece.tokens) offsets.push_back(token.offset);
  };
  for (const TokenId token : tokens) {
    std::string bytes = spelled(token, codec);
    // A space that the tokenizer put in front of the text, or the token is not in it at all.
    if (bytes.starts_with(' ') && !text.starts_with(bytes)) bytes.erase(0, 1);
    if (!text.starts_with(bytes)) bytes.clear();
    text.remove_prefix(bytes.size());
    take(shown.push({.token = token}, bytes));
  }
  take(shown.flush());
  return offsets;
}

std::vector<ShownToken> shown_prompt(const TokenizedPrompt& prompt, std::vector<SampledToken> scored) {
  std::vector<ShownToken> tokens = {{{.token = prompt.tokens.front()}, prompt.offsets.front()}};
  for (size_t i = 0; i < scored.size(); ++i) tokens.push_back({std::move(scored[i]), prompt.offsets[i + 1]});
  return tokens;
}

}  // namespace runahead
