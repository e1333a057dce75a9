// Splits a chat template into tokens, with jinja2's white-space rules: trim_blocks and lstrip_blocks on, as Hugging
// Face sets them, `-` and `+` at the tags, one trailing newline of the source dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead::jinja {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;      // from 1
  std::string text;  // of kText, kName, kString (without quotes and escapes), kOperator
  int64_t integer = 0;
  double real = 0;
};

// kInvalidModel if the source is malformed. The last token is kEnd.
Result<std::vector<Token>> tokenize(std::string_view source);

// An error of the template's own text: the model file carries it.
inline std::unexpected<Error> syntax_error(int line, const std::string& what) {
  return fail(ErrorCode::kInvalidModel, "line " + std::to_string(line) + " of the chat template: " + what);
}

}  // namespace runahead::jinja
