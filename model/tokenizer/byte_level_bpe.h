// ByteLevelBpe: `tokenizer.ggml.model` = gpt2. A text is cut into words, within which bytes are merged by the file's list.
// Private to model/tokenizer.
//   exact    the tokens' bytes are the text's, of every text: also of invalid UTF-8. But for tokenizers that make NFC of a text
//            first, as folders of Hugging Face's may say (Qwen's do).
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "model/tokenizer/byte_pairs.h"
#include "model/tokenizer/plain_encoder.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/weights/gguf.h"

namespace runahead {

class ByteLevelBpe final : public PlainEncoder {
 public:
  // kUnsupported for an unknown or missing pre-tokenizer or text in lower case, kInvalidModel for merges that are none.
  static Result<std::unique_ptr<const PlainEncoder>> load(const Gguf& file, const Vocabulary& vocabulary);

  Result<void> encode(std::string_view text, size_t offset, EncodedText& out) const override;
  Result<std::string> normalised(std::string_view text) const override;
  Result<void> encode_normal(std::string_view text, size_t offset, EncodedText& out) const override;
  std::string bytes_of(std::string_view token, TokenKind kind) const override;
  bool adds_bos() const override { return pre_.adds_bos(); }

 private:
  explicit ByteLevelBpe(PreTokenizer pre) : pre_(std::move(pre)) {}

  PreTokenizer pre_;
  bool composes_ = false;  // texts become NFC first
  BytePairs pairs_;
  std::unordered_map<std::string, TokenId> by_bytes_;  // tokens that text may become; control tokens are not among them
};

}  // namespace runahead
