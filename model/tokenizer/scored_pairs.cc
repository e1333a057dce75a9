#include "model/tokenizer/scored_pairs.h"

#include <algorithm>
#include <bit>
#include <span>

#include "base/utf8.h"
#include "model/tokenizer/sentence_pieces.h"

namespace runahead {
namespace {

// Descending: floats of one sign order as their bits do, negative ones backwards. Never PairMerging::kNone, which would be no
// number's.
uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 is 0
  return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}

// Offsets in the spelled text, ascending -> offsets in `text`, each once. prefix: what was put in front.
void append_original(std::string_view text, size_t offset, size_t prefix, std::span<const size_t> spelled,
                     std::vector<size_t>& out) {
  size_t end = prefix;  // of text[i] in the spelled text
  for (size_t i = 0, next = 0; i < text.size() && next < spelled.size(); ++i) {
    end += text[i] == ' ' ? kSpaceSymbol.size() : 1;
    if (spelled[next] >= end) continue;
    out.push_back(offset + i);
    while (next < spelled.size() && spelled[next] < end) ++next;
  }
}

}  // namespace

Result<std::unique_ptr<const PlainEncoder>> ScoredPairs::load(const Gguf& file, const Vocabulary& vocabulary) {
  std::unique_ptr<ScoredPairs> pairs(new ScoredPairs);
  const size_t count = vocabulary.texts.size();
  const std::vector<float> scores = TRY(read_scores(file, count));
  pairs->adds_space_ = TRY(file.boolean_or("tokenizer.ggml.add_space_prefix", true));
  pairs->byte_tokens_.fill(kNoToken);
  pairs->pieces_.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view text = vocabulary.texts[i];
    if (is_made_of_text(text, vocabulary.kinds[i])) {
      pairs->add(text, id, scores[i]);
    } else if (const int byte = byte_of_piece(text); byte >= 0 && vocabulary.kinds[i] == TokenKind::kText) {
      TokenId& token = pairs->byte_tokens_[static_cast<size_t>(byte)];
      if (token == kNoToken) token = id;
    }
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    const Piece* piece = pairs->find({&text, 1});
    if (piece != nullptr && pairs->byte_tokens_[byte] == kNoToken) pairs->byte_tokens_[byte] = piece->id;
  }
  TRY(pairs->check_space());
  return pairs;
}

void ScoredPairs::add(std::string_view text, TokenId id, float score) {
  if (!pieces_.try_emplace(std::string(text), Piece{id, rank_of(score)}).second) return;
  longest_ = std::max(longest_, text.size());
  joins_words_ = joins_words_ || joins_words(text);
}

Result<void> ScoredPairs::check_space() const {
  if (find(kSpaceSymbol) != nullptr) return {};
  for (const char byte : kSpaceSymbol)
    if (byte_tokens_[static_cast<uint8_t>(byte)] == kNoToken)
      return fail(ErrorCode::kInvalidModel, "the vocabulary has no token for a space (U+2581); convert the model again",
                  "tokenizer.ggml.tokens");
  return {};
}

const ScoredPairs::Piece* ScoredPairs::find(std::string_view text) const {
  if (text.size() > longest_) return nullptr;
  const auto found = pieces_.find(text);
  return found == pieces_.end() ? nullptr : &found->second;
}

Result<void> ScoredPairs::encode(std::string_view text, size_t offset, EncodedText& out) const {
  std::string spelled(adds_space_ ? kSpaceSymbol : std::string_view());
  append_with_space_symbols(text, spelled);
  const std::string_view all = spelled;
  PairMerging merging;
  EncodedText encoded;
  size_t begin = 0;  // of the word
  bool behind_space = true;
  merging.start();
  for (size_t at = 0; at < all.size();) {
    const Utf8Sequence character = utf8_sequence(all.substr(at));
    const bool is_valid = character.kind == Utf8Sequence::Kind::kCharacter;
    const std::string_view symbol = all.substr(at, is_valid ? character.bytes : 1);
    const bool is_space = symbol == kSpaceSymbol;
    if (is_space && !behind_space && !joins_words_) {  // no token reaches over: what is left and right is independent
      take_word(all.substr(begin, at - begin), merging, begin, encoded);
      merging.start();
      begin = at;
    }
    behind_space = is_space;
    const Piece* piece = find(symbol);
    merging.add({piece == nullptr ? kNoToken : piece->id, static_cast<uint32_t>(at - begin)});
    at += symbol.size();
  }
  take_word(all.substr(begin), merging, begin, encoded);
  out.ids.insert(out.ids.end(), encoded.ids.begin(), encoded.ids.end());
  append_original(text, offset, adds_space_ ? kSpaceSymbol.size() : 0, encoded.missing, out.missing);
  return {};
}

void ScoredPairs::take_word(std::string_view word, PairMerging& merging, size_t offset, EncodedText& out) const {
  using Symbol = PairMerging::Symbol;
  merging.run(static_cast<uint32_t>(word.size()),
              [&](Symbol left, Symbol, uint32_t end) -> std::optional<PairMerging::Merge> {
                const Piece* joined = find(word.substr(left.begin, end - left.begin));
                if (joined == nullptr) return std::nullopt;
                return PairMerging::Merge{joined->rank, joined->id};
              });
  merging.each([&](int32_t symbol, uint32_t begin, uint32_t end) {
    if (symbol != kNoToken) {
      out.ids.push_back(symbol);
      return;
    }
    for (uint32_t i = begin; i < end; ++i) {
      const TokenId token = byte_tokens_[static_cast<uint8_t>(word[i])];
      if (token != kNoToken) out.ids.push_back(token);
      else out.missing.push_back(offset + i);
    }
  });
}

std::string ScoredPairs::bytes_of(std::string_view token, TokenKind kind) const { return piece_bytes(token, kind); }

}  // namespace runahead
