// PlainEncoder: how one kind of tokenizer makes tokens of text that no special token is in. Private to model/tokenizer.
//   threads  const: any number may encode at once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/tokenizer/token_roles.h"

namespace runahead {

// What is read from the file for all kinds. Views into the file.
struct Vocabulary {
  std::vector<std::string_view> texts;  // tokenizer.ggml.tokens
  std::vector<TokenKind> kinds;
  // [texts], or none: user-defined ones that the model makes of text as well, where they are not cut out of it (`single_word`).
  std::vector<bool> of_model;

  bool is_made_of_text(size_t index) const {
    return kinds[index] == TokenKind::kText ||
           (kinds[index] == TokenKind::kUserDefined && !of_model.empty() && of_model[index]);
  }
};

struct EncodedText {
  std::vector<TokenId> ids;
  std::vector<size_t> missing;  // offsets of the bytes that the vocabulary has no token for
};

class PlainEncoder {
 public:
  virtual ~PlainEncoder() = default;
  // Appends the tokens of `text`, which is not empty and begins at `offset` of the whole one: at its start or behind a
  // special token, and it ends before one or with the text.
  virtual Result<void> encode(std::string_view text, size_t offset, EncodedText& out) const = 0;
  // The same in two steps, between which tokens are cut out of the normalised text: those of folders that are looked for there.
  virtual Result<std::string> normalised(std::string_view text) const { return std::string(text); }
  virtual Result<void> encode_normal(std::string_view text, size_t offset, EncodedText& out) const {
    return encode(text, offset, out);
  }
  // What the text of a token stands for that is no control token.
  virtual std::string bytes_of(std::string_view token, TokenKind kind) const = 0;
  // The first word of each text is spelled with a space in front, as all the others are.
  virtual bool adds_space() const { return false; }
  // encode_normal does it: behind a token that was cut out of the normalised text, too.
  virtual bool adds_space_to_normal() const { return false; }
  // Of the first text alone, not of what follows a special token.
  virtual bool adds_first_space() const { return false; }
  // What add_bos_token means in a file that lacks it.
  virtual bool adds_bos() const { return false; }
};

}  // namespace runahead
