#include "model/tokenizer/merged_characters.h"

#include <algorithm>

#include "base/utf8.h"
#include "model/tokenizer/sentence_pieces.h"

namespace runahead {
Result<std::unique_ptr<const PlainEncoder>> MergedCharacters::load(const Gguf& file, const Vocabulary& vocabulary) {
  constexpr std::pair<std::string_view, Prefix> kPrefixes[] = {{"none", Prefix::kNone},
                                                               {"each", Prefix::kEach},
                                                               {"each_if_missing", Prefix::kEachIfMissing},
                                                               {"first_if_missing", Prefix::kFirstIfMissing}};
  std::unique_ptr<MergedCharacters> made(new MergedCharacters);
  const std::string_view prefix = TRY(file.str("runahead.tokenizer.space_prefix"));
  const auto* found = std::ranges::find(kPrefixes, prefix, [](const auto& one) { return one.first; });
  if (found == std::end(kPrefixes)) return bad_tokenizer("has an unknown way to put spaces in front");
  made->prefix_ = found->second;
  made->normalises_ = file.has("runahead.tokenizer.normalizer");
  TRY(made->load_tokens(vocabulary));
  TRY(made->load_merges(TRY(file.strings("runahead.tokenizer.merges"))));
  return made;
}

Result<void> MergedCharacters::load_tokens(const Vocabulary& vocabulary) {
  byte_tokens_.fill(kNoToken);
  tokens_.reserve(vocabulary.texts.size());
  for (size_t i = 0; i < vocabulary.texts.size(); ++i) {
    const std::string_view text = vocabulary.texts[i];
    if (vocabulary.kinds[i] == TokenKind::kControl) continue;
    tokens_.try_emplace(std::string(text), static_cast<TokenId>(i));
    if (const int byte = byte_of_piece(text); byte >= 0)
      byte_tokens_[static_cast<size_t>(byte)] = static_cast<TokenId>(i);
  }
  if (std::ranges::find(byte_tokens_, kNoToken) != byte_tokens_.end())
    return bad_tokenizer("falls back to bytes and lacks some of them (<0x00> to <0xFF>)");
  return {};
}

Result<void> MergedCharacters::load_merges(const std::vector<std::string_view>& merges) {
  merges_.reserve(merges.size() / 2);
  std::string joined;
  for (size_t i = 0; i + 1 < merges.size(); i += 2) {
    joined.assign(merges[i]).append(merges[i + 1]);
    const TokenId left = find(merges[i]), right = find(merges[i + 1]), both = find(joined);
    if (left == kNoToken || right == kNoToken || both == kNoToken)
      return bad_tokenizer("merges " + quoted(merges[i]) + " and " + quoted(merges[i + 1]) +
                           ", which are not all tokens of text");
    joins_words_ = joins_words_ || joins_words(joined);
    merges_.try_emplace(pair_key(left, right), PairMerging::Merge{static_cast<uint32_t>(i / 2), both});
  }
  return {};
}

TokenId MergedCharacters::find(std::string_view text) const {
  const auto found = tokens_.find(text);
  return found == tokens_.end() ? kNoToken : found->second;
}

std::string MergedCharacters::spelled(std::string_view text, size_t offset) const {
  std::string out;
  const bool there = text.starts_with(' ') || text.starts_with(kSpaceSymbol);
  const bool first = prefix_ == Prefix::kFirstIfMissing && offset == 0;
  if ((prefix_ == Prefix::kEachIfMissing || first) && !there) out = kSpaceSymbol;
  append_with_space_symbols(text, out);
  return out;
}

Result<std::string> MergedCharacters::normalised(std::string_view text) const {
  if (!normalises_) return std::string(text);
  std::string out(prefix_ == Prefix::kEach ? kSpaceSymbol : std::string_view());
  append_with_space_symbols(text, out);
  return out;
}

Result<void> MergedCharacters::encode(std::string_view text, size_t offset, EncodedText& out) const {
  return encode_normal(TRY(normalised(text)), offset, out);
}

Result<void> MergedCharacters::encode_normal(std::string_view text, size_t offset, EncodedText& out) const {
  const std::string all = spelled(text, offset);
  PairMerging merging;
  size_t begin = 0;  // of the word
  bool behind_space = true;
  merging.start();
  for (size_t at = 0; at < all.size();) {
    const std::string_view rest = std::string_view(all).substr(at);
    const Utf8Sequence character = utf8_sequence(rest);
    const std::string_view symbol =
        rest.substr(0, character.kind == Utf8Sequence::Kind::kCharacter ? character.bytes : 1);
    const bool is_space = symbol == kSpaceSymbol;
    if (is_space && !behind_space && !joins_words_) {  // no merge reaches over: what is left and right is independent
      take_word(std::string_view(all).substr(begin, at - begin), merging, out.ids);
      merging.start();
      begin = at;
    }
    behind_space = is_space;
    merging.add({find(symbol), static_cast<uint32_t>(at - begin)});
    at += symbol.size();
  }
  take_word(std::string_view(all).substr(begin), merging, out.ids);
  return {};
}

void MergedCharacters::take_word(std::string_view word, PairMerging& merging, std::vector<TokenId>& out) const {
  using Symbol = PairMerging::Symbol;
  merging.run(static_cast<uint32_t>(word.size()),
              [&](Symbol left, Symbol right, uint32_t) -> std::optional<PairMerging::Merge> {
                const auto merge = merges_.find(pair_key(left.id, right.id));
                return merge == merges_.end() ? std::nullopt : std::optional(merge->second);
              });
  merging.each([&](int32_t symbol, uint32_t begin, uint32_t end) {
    if (symbol != kNoToken) {
      out.push_back(symbol);
      return;
    }
    for (const char byte : word.substr(begin, end - begin)) out.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
  });
}

std::string MergedCharacters::bytes_of(std::string_view token, TokenKind kind) const {
  return piece_bytes(token, kind);
}

}  // namespace runahead
