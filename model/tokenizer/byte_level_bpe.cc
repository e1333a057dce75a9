#include "model/tokenizer/byte_level_bpe.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

namespace runahead {
namespace {

Result<PreTokenizer> load_pre_tokenizer(const Gguf& file) {
  constexpr const char* kKey = "tokenizer.ggml.pre";
  constexpr const char* kExpressions = "runahead.tokenizer.expressions";  // of a folder (model/weights/hf_tokenizer.h)
  if (file.has(kExpressions) && !file.has(kKey))
    return PreTokenizer::of(TRY(file.strings(kExpressions)), TRY(file.boolean("runahead.tokenizer.ignore_merges")));
  if (file.has(kKey)) return PreTokenizer::load(TRY(file.str(kKey)));
  return fail(
      ErrorCode::kUnsupported,
      "the file does not say how its tokenizer cuts words (tokenizer.ggml.pre), as conversions of early 2024; convert "
      "the model anew, or name it: --override-kv tokenizer.ggml.pre=str:NAME (llama.cpp takes 'default')",
      kKey);
}

// Normalization Form C. Bytes that are no UTF-8 stay, with all that is around them.
std::string normalized_c(std::string_view text) {
  if (std::ranges::all_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x80; })) return std::string(text);
  utf8proc_uint8_t* made = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, std::free);
  return size < 0 ? std::string(text) : std::string(reinterpret_cast<const char*>(made), static_cast<size_t>(size));
}

}  // namespace

Result<std::unique_ptr<const PlainEncoder>> ByteLevelBpe::load(const Gguf& file, const Vocabulary& vocabulary) {
  constexpr const char* kLowerCase = "tokenizer.ggml.normalizer.lowercase";
  if (TRY(file.boolean_or(kLowerCase, false)))
    return fail(ErrorCode::kUnsupported,
                "a tokenizer that writes all text in lower case first is not supported; choose another model",
                kLowerCase);
  PreTokenizer pre = TRY(load_pre_tokenizer(file));  // not inside of new: what has been allocated would leak
  std::unique_ptr<ByteLevelBpe> bpe(new ByteLevelBpe(std::move(pre)));
  bpe->composes_ = file.has("runahead.tokenizer.normalizer");
  std::string bytes;
  for (size_t i = 0; i < vocabulary.texts.size(); ++i) {
    if (vocabulary.is_made_of_text(i) && bytes_from_stand_ins(vocabulary.texts[i], bytes))
      bpe->by_bytes_.try_emplace(bytes, static_cast<TokenId>(i));
  }
  bpe->pairs_ = TRY(BytePairs::load(bpe->by_bytes_, static_cast<int32_t>(vocabulary.texts.size()),
                                    TRY(file.strings("tokenizer.ggml.merges"))));
  return bpe;
}

Result<void> ByteLevelBpe::encode(std::string_view text, size_t offset, EncodedText& out) const {
  return composes_ ? encode_normal(normalized_c(text), offset, out) : encode_normal(text, offset, out);
}

Result<std::string> ByteLevelBpe::normalised(std::string_view text) const {
  return composes_ ? normalized_c(text) : std::string(text);
}

Result<void> ByteLevelBpe::encode_normal(std::string_view text, size_t offset, EncodedText& out) const {
  PairMerging merging;
  std::vector<std::string_view> pieces;
  std::vector<size_t> missing;  // in one piece
  std::string word;
  TRY(pre_.split(text, pieces));
  for (const std::string_view piece : pieces) {
    if (pre_.ignore_merges()) {
      word = piece;
      if (const auto whole = by_bytes_.find(word); whole != by_bytes_.end()) {
        out.ids.push_back(whole->second);
        continue;
      }
    }
    missing.clear();
    pairs_.encode(piece, merging, out.ids, missing);
    const size_t at = offset + static_cast<size_t>(piece.data() - text.data());
    for (const size_t in_piece : missing) out.missing.push_back(at + in_piece);
  }
  return {};
}

std::string ByteLevelBpe::bytes_of(std::string_view token, TokenKind kind) const {
  std::string bytes;
  if (kind == TokenKind::kText && bytes_from_stand_ins(token, bytes)) return bytes;
  return std::string(token);  // no text becomes it by merges, but the model may still say it
}

}  // namespace runahead
