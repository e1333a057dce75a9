// An echoed prompt whose log-probabilities are asked for: its tokens as the text shows them. Pure; any thread.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "services/gateway/answer/incremental_detokenizer.h"
#include "services/gateway/request/openai_request.h"

namespace runahead {

// Characters of `text` before each of its tokens. A token that the model wants around every text (begin of text) is not in it.
std::vector<int64_t> token_offsets(std::string_view text, std::span<const TokenId> tokens, const TextCodec& codec);

// scored: the prompt's tokens from the second on. The first one, with nothing before it, has no log-probability.
std::vector<ShownToken> shown_prompt(const TokenizedPrompt& prompt, std::vector<SampledToken> scored);

}  // namespace runahead
