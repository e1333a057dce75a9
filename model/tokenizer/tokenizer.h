// Tokenizer: text to token ids and back, as the model file says (tokenizer.ggml.model): byte-level BPE (gpt2), SentencePiece's
// BPE (llama) or unigram (t5), with the file's own vocabulary and special tokens.
//   exact   gpt2: decode(encode(text)) == text, byte for byte, for every text that encode takes: also for invalid UTF-8,
//           whose bytes are pieces of their own. llama: the same, but U+2581 comes back as the space for which it stands.
//           A byte that the vocabulary has no token for is an error, never dropped; t5 normalises, and has an unknown token.
//           Texts are not normalised otherwise (no NFC), as in llama.cpp.
//   threads immutable once loaded: any number of threads may call it.
//   memory  owns all it needs: the file may be closed after load.
//   limits  limits::kTextBytesMax a text; time O(n log n).
// Oracles: tests/golden/make_tokens.py, make_llama_vocab.py, make_sentence_pieces.py; docs/tokenizers.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/utf8.h"
#include "model/model_config.h"
#include "model/tokenizer/plain_encoder.h"
#include "model/tokenizer/special_text.h"
#include "model/tokenizer/token_roles.h"
#include "model/weights/gguf.h"

namespace runahead {

class Tokenizer {
 public:
  // kUnsupported for another kind of tokenizer or an unknown pre-tokenizer, kInvalidModel for a vocabulary that
  // contradicts itself.
  static Result<Tokenizer> load(const Gguf& file);

  // parse_special: `<|im_start|>` in the text becomes the control token. Only for text that we wrote ourselves (a
  // rendered chat template) or whose author may write control tokens: a user's words are taken as words otherwise.
  // kInvalidArgument names the first byte without a token and how many there are; kTooLarge.
  Result<std::vector<TokenId>> encode(std::string_view text, bool parse_special) const;
  // The first control token that `text` spells at or after `from`; bytes 0: none. For callers that must tell the control
  // tokens that they wrote from those that somebody quoted (services/engine/model_text_codec).
  struct Spelled {
    size_t at = 0;
    size_t bytes = 0;
    size_t own_at = 0, own_bytes = 0;  // without the spaces around it that it takes
    TokenId id = kNoToken;
  };
  Spelled find_control(std::string_view text, size_t from) const;
  // Puts the beginning- and end-of-text tokens around `ids` that the file asks for, unless they are there already.
  void add_bos_eos(std::vector<TokenId>& ids) const;

  // The bytes a token stands for; a control token's own text. Empty for an id outside the vocabulary (a model's output
  // may be padded beyond it).
  std::string_view token_bytes(TokenId id) const;
  // A control or unknown token: its text is no part of an answer.
  bool is_control(TokenId id) const;
  // The bytes of all the tokens: may begin or end inside a character. Where encode puts a space in front of a text, the
  // first space of the ids' text and of what follows a special token is left out: it is not the text's.
  std::string decode(std::span<const TokenId> ids, bool with_control) const;

  // Tokens after which nothing is generated: eos, eot, eom and those known by their text (token_roles.h). Ascending.
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }
  bool is_end(TokenId id) const;
  const SpecialTokens& special() const { return special_; }
  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  struct Token {
    std::string bytes;
    TokenKind kind = TokenKind::kText;
    bool is_cut_out = false;  // of any text before the rest is encoded
    bool is_normal = false;  // of the normalised text
  };
  // Of a folder that has tokens which are looked for in the normalised text: the others are cut out of the text as it is, and
  // what is left is normalised, each stretch by itself.
  struct TwoPasses {
    SpecialTokenMatcher before, behind;
  };

  Tokenizer() = default;
  Result<void> load_vocabulary(const Gguf& file, std::string_view kind);
  Result<void> add_tokens(const Gguf& file, const Vocabulary& vocabulary, std::span<const int32_t> added);
  Result<void> add_token(const Vocabulary& vocabulary, size_t index, const TokenSurroundings& surroundings,
                         bool is_normal);
  Result<void> encode_stretch(std::string_view text, size_t offset, bool parse_special, EncodedText& out) const;
  std::unexpected<Error> missing_bytes(std::string_view text, const std::vector<size_t>& offsets) const;

  std::unique_ptr<const PlainEncoder> plain_;
  SpecialTokenMatcher spelled_;  // all tokens that are cut out, as a template writes them
  std::optional<TwoPasses> finds_in_normal_;
  SpecialTokens special_;
  std::vector<Token> tokens_;  // [vocab_size]
  std::vector<TokenId> end_tokens_;
};

}  // namespace runahead
