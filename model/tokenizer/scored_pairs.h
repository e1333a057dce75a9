// ScoredPairs: `tokenizer.ggml.model` = llama. SentencePiece's BPE as llama.cpp runs it: of all neighbours that are a token
// together the best-scored ones are joined, leftmost first among equals; what is no token in the end is spelled in bytes.
// Private to model/tokenizer.
//   exact    the tokens' bytes are the text's, but a U+2581 in it comes back as a space, for which it stands.
//   limits   O(n log n) in the text, times the longest token's length; some 32 bytes of memory a byte of the longest word.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>

#include "model/tokenizer/pair_merging.h"
#include "model/tokenizer/plain_encoder.h"
#include "model/tokenizer/sentence_pieces.h"
#include "model/weights/gguf.h"

namespace runahead {

class ScoredPairs final : public PlainEncoder {
 public:
  // kInvalidModel for scores that are none, or a vocabulary that cannot spell a space.
  static Result<std::unique_ptr<const PlainEncoder>> load(const Gguf& file, const Vocabulary& vocabulary);

  Result<void> encode(std::string_view text, size_t offset, EncodedText& out) const override;
  std::string bytes_of(std::string_view token, TokenKind kind) const override;
  bool adds_space() const override { return adds_space_; }

 private:
  struct Piece {
    TokenId id;
    uint32_t rank;  // the better the score, the lower
  };

  ScoredPairs() = default;
  void add(std::string_view text, TokenId id, float score);
  Result<void> check_space() const;
  const Piece* find(std::string_view text) const;
  // Merges what is in `merging`, symbols of text[begin, end), and appends the tokens.
  void take_word(std::string_view word, PairMerging& merging, size_t offset, EncodedText& out) const;

  TextMap<Piece> pieces_;
  std::array<TokenId, 256> byte_tokens_;  // kNoToken where the vocabulary has none
  size_t longest_ = 0;  // of pieces_, in bytes
  bool adds_space_ = true;
  bool joins_words_ = false;  // some token has a space after other characters
};

}  // namespace runahead
