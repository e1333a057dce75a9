// Unigram: `tokenizer.ggml.model` = t5, or unigram, which only folders of Hugging Face's have (model/weights/hf_unigram.cc).
// Of t5: SentencePiece's unigram model as llama.cpp runs it: the text is normalised by the file's rules, and of all its ways to
// be cut into tokens the one of the largest sum of scores is taken. What no token spells is the unknown token, once for a run of
// it. Private to model/tokenizer.
//   exact    not: the text is normalised, and what is unknown is lost.
//   limits   O(n) in the text, times the longest token's length; 16 bytes of memory a byte of the text.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "model/tokenizer/charsmap.h"
#include "model/tokenizer/plain_encoder.h"
#include "model/tokenizer/text_steps.h"
#include "model/weights/gguf.h"

namespace runahead {

class Unigram final : public PlainEncoder {
 public:
  // kInvalidModel for scores or rules that are none.
  static Result<std::unique_ptr<const PlainEncoder>> load(const Gguf& file, const Vocabulary& vocabulary);
  // As `tokenizers` runs it: other steps before, words by themselves, bytes for what is unknown, sums of the file's own doubles.
  static Result<std::unique_ptr<const PlainEncoder>> load_folder(const Gguf& file, const Vocabulary& vocabulary);

  Result<void> encode(std::string_view text, size_t offset, EncodedText& out) const override;
  Result<std::string> normalised(std::string_view text) const override;
  Result<void> encode_normal(std::string_view text, size_t offset, EncodedText& out) const override;
  std::string bytes_of(std::string_view token, TokenKind kind) const override;
  bool adds_space() const override { return adds_space_; }
  bool adds_space_to_normal() const override { return steps_ && steps_->adds_space_to_normal(); }
  bool adds_first_space() const override { return steps_ && steps_->adds_first_space(); }

 private:
  struct Piece {
    std::string text;
    TokenId id;
    double score;
  };
  struct Best {  // of the ways to cut the text up to here
    double score;
    TokenId last;  // its last token
    uint32_t begin;  // of that token
  };

  Unigram() = default;
  Result<void> load_pieces(const Gguf& file, const Vocabulary& vocabulary);
  Result<void> load_folder_pieces(const Gguf& file, const Vocabulary& vocabulary);
  void index_pieces();
  Result<std::string> normalised_by_rules(std::string_view text) const;
  // Tries every token that begins at `begin`; true if one has exactly `length` bytes.
  bool extend(std::string_view text, size_t begin, size_t length, std::vector<Best>& best) const;
  std::vector<Best> best_cuts(std::string_view text) const;
  void encode_word(std::string_view word, std::vector<TokenId>& out) const;
  void spell_backwards(std::string_view unknown, std::vector<TokenId>& out) const;

  std::vector<Piece> pieces_;  // by text
  std::array<size_t, 257> begins_{};  // where the pieces of each first byte begin
  CharsMap rules_;
  std::optional<TextSteps> steps_;  // of a folder, instead of the rules
  std::array<TokenId, 256> byte_tokens_{};
  bool falls_back_ = false;  // there are all of them
  TokenId unknown_ = kNoToken;
  double unknown_score_ = 0;
  bool adds_space_ = false, merges_spaces_ = false;
};

}  // namespace runahead
