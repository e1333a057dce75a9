// TokenRoles: what each token of a vocabulary is, and which ones end an answer. Files say both, and some say it wrongly (an
// end marker typed as a normal word): those are mended as llama.cpp mends them, because exporters try their files there.
// Checked by tests/golden/make_llama_vocab.py. Private to model/tokenizer.
#pragma once

#include <string_view>
#include <vector>

#include "model/model_config.h"
#include "model/weights/gguf.h"

namespace runahead {

enum class TokenKind {
  kText,  // normal, unused, byte: spelled in stand-ins, made of text by merges
  kUserDefined,  // taken out of any text as a whole
  kControl,  // only where control tokens are parsed; no part of an answer's text
};

struct TokenRoles {
  std::vector<TokenKind> kinds;  // [texts]
  std::vector<TokenId> end_tokens;  // nothing is generated after them; ascending
};

// texts: tokenizer.ggml.tokens. kInvalidModel for types that do not fit them.
Result<TokenRoles> read_token_roles(const Gguf& file, const std::vector<std::string_view>& texts,
                                    const SpecialTokens& special);

}  // namespace runahead
