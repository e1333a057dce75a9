// MergedCharacters: `tokenizer.ggml.model` = merged-characters, which only folders of Hugging Face's have (hf_tokenizer.h): BPE
// over characters by a list of merges, as `tokenizers` runs it for Llama 2, Mistral, Gemma, Phi-3. A character that is no token
// is spelled in bytes. GGUF has scores instead of that list (ScoredPairs), and the two differ where one token has several merges.
// Private to model/tokenizer.
//   exact    the tokens' bytes are the text's, but a U+2581 in it comes back as a space.
//   limits   O(n log n) in the text; some 32 bytes of memory a byte of the longest word.
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

class MergedCharacters final : public PlainEncoder {
 public:
  // kInvalidModel for merges of what is no token, and for a vocabulary without all 256 bytes.
  static Result<std::unique_ptr<const PlainEncoder>> load(const Gguf& file, const Vocabulary& vocabulary);

  Result<void> encode(std::string_view text, size_t offset, EncodedText& out) const override;
  Result<std::string> normalised(std::string_view text) const override;
  Result<void> encode_normal(std::string_view text, size_t offset, EncodedText& out) const override;
  std::string bytes_of(std::string_view token, TokenKind kind) const override;
  bool adds_space() const override { return prefix_ == Prefix::kEach || prefix_ == Prefix::kEachIfMissing; }
  bool adds_space_to_normal() const override { return prefix_ == Prefix::kEachIfMissing; }
  bool adds_first_space() const override { return prefix_ == Prefix::kFirstIfMissing; }

 private:
  // Which stretches of text get a space in front.
  enum class Prefix { kNone, kEach, kEachIfMissing, kFirstIfMissing };

  MergedCharacters() = default;
  Result<void> load_tokens(const Vocabulary& vocabulary);
  Result<void> load_merges(const std::vector<std::string_view>& merges);
  std::string spelled(std::string_view text, size_t offset) const;
  TokenId find(std::string_view text) const;
  void take_word(std::string_view word, PairMerging& merging, std::vector<TokenId>& out) const;

  TextMap<TokenId> tokens_;
  std::unordered_map<uint64_t, PairMerging::Merge> merges_;  // left << 32 | right
  std::array<TokenId, 256> byte_tokens_{};
  Prefix prefix_ = Prefix::kNone;
  bool normalises_ = false;  // spaces become U+2581 before tokens are looked for in the normalised text
  bool joins_words_ = false;  // some merge has a space behind other characters
};

}  // namespace runahead
