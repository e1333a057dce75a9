#include "model/tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "base/limits.h"
#include "base/utf8.h"
#include "model/tokenizer/sentence_pieces.h"

namespace runahead {
namespace {

constexpr TokenId kUnknownDefault = 2;  // T5's
constexpr float kUnknownPenalty = 10;  // SentencePiece's: under the worst token
constexpr int32_t kNormalType = 1, kUndefinedType = 0, kByteType = 6;  // of tokenizer.ggml.token_type

// How many bytes a character takes that begins with this one, or is taken for a character if it is none.
size_t character_length(char first) {
  const auto byte = static_cast<uint8_t>(first);
  if (byte < 0xC0) return 1;
  return byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

Result<std::unique_ptr<const PlainEncoder>> Unigram::load(const Gguf& file, const Vocabulary& vocabulary) {
  constexpr const char* kRules = "tokenizer.ggml.precompiled_charsmap";
  std::unique_ptr<Unigram> unigram(new Unigram);
  unigram->adds_space_ = TRY(file.boolean_or("tokenizer.ggml.add_space_prefix", false));
  unigram->merges_spaces_ = TRY(file.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false));
  if (file.has(kRules)) unigram->rules_ = TRY(CharsMap::load(TRY(file.bytes(kRules))));
  const uint64_t unknown = TRY(file.u64_or("tokenizer.ggml.unknown_token_id", kUnknownDefault));
  if (unknown < vocabulary.texts.size()) unigram->unknown_ = static_cast<TokenId>(unknown);
  TRY(unigram->load_pieces(file, vocabulary));
  return unigram;
}

Result<void> Unigram::load_pieces(const Gguf& file, const Vocabulary& vocabulary) {
  constexpr const char* kTypes = "tokenizer.ggml.token_type";
  const size_t count = vocabulary.texts.size();
  const std::vector<float> scores = TRY(read_scores(file, count));
  std::vector<int32_t> types(count, kNormalType);
  if (file.has(kTypes)) types = TRY(file.i32s(kTypes));  // as many as tokens: read_token_roles has counted
  float worst = std::numeric_limits<float>::max();
  for (size_t i = 0; i < count; ++i) {
    const TokenKind kind = vocabulary.kinds[i];
    if (types[i] == kNormalType) worst = std::min(worst, scores[i]);
    if (vocabulary.texts[i].empty() || kind == TokenKind::kControl || types[i] == kByteType ||
        types[i] == kUndefinedType)
      continue;
    const double score = kind == TokenKind::kUserDefined ? 0.0 : double{scores[i]};
    pieces_.push_back({std::string(vocabulary.texts[i]), static_cast<TokenId>(i), score});
  }
  unknown_score_ = double{worst - kUnknownPenalty};
  std::ranges::stable_sort(pieces_, {}, &Piece::text);
  const auto same = std::ranges::unique(pieces_, {}, &Piece::text);  // of equal ones the first id
  pieces_.erase(same.begin(), same.end());
  for (const Piece& piece : pieces_) ++begins_[static_cast<uint8_t>(piece.text[0]) + 1u];
  for (size_t byte = 0; byte < 256; ++byte) begins_[byte + 1] += begins_[byte];
  return {};
}

Result<std::string> Unigram::normalised(std::string_view text) const {
  constexpr size_t kBytesMax = 4 * limits::kTextBytesMax;  // SentencePiece's own rules at most double a text
  std::string out;
  bool space_added = false, in_word = false;
  const auto take = [&](char c) {
    if (c == ' ') {
      in_word = false;
      if (!merges_spaces_) out += kSpaceSymbol;
      return;
    }
    if (!in_word && (merges_spaces_ || (adds_space_ && !space_added))) {
      out += kSpaceSymbol;
      space_added = true;
    }
    in_word = true;
    out += c;
  };
  while (!text.empty()) {
    const CharsMap::Match rule = rules_.longest(text);
    const Utf8Sequence next = utf8_sequence(text);
    const bool is_character = next.kind == Utf8Sequence::Kind::kCharacter;
    const size_t bytes = rule.bytes > 0 ? rule.bytes : is_character ? next.bytes : 1;
    const std::string_view becomes = rule.bytes > 0 ? rule.becomes
                                     : is_character ? text.substr(0, bytes)
                                                    : kReplacementCharacter;
    std::ranges::for_each(becomes, take);
    text.remove_prefix(bytes);
    if (out.size() > kBytesMax)
      return fail(ErrorCode::kTooLarge, "the model's rules of normalising make a text of more than " +
                                            std::to_string(kBytesMax) + " bytes of this one");
  }
  return out;
}

bool Unigram::extend(std::string_view text, size_t begin, size_t length, std::vector<Best>& best) const {
  const auto first = static_cast<uint8_t>(text[begin]);
  auto low = pieces_.begin() + static_cast<ptrdiff_t>(begins_[first]);
  auto high = pieces_.begin() + static_cast<ptrdiff_t>(begins_[first + 1u]);
  bool whole = false;
  for (size_t size = 1; low != high; ++size) {  // all pieces of [low, high) begin with these `size` bytes
    if (low->text.size() == size) {
      const double score = best[begin].score + low->score;
      if (Best& there = best[begin + size]; score > there.score) there = {score, low->id, static_cast<uint32_t>(begin)};
      whole = whole || size == length;
      ++low;
    }
    if (begin + size == text.size()) break;
    const auto byte_at = [size](const Piece& piece) { return static_cast<uint8_t>(piece.text[size]); };
    const auto narrowed = std::ranges::equal_range(low, high, static_cast<uint8_t>(text[begin + size]), {}, byte_at);
    low = narrowed.begin();
    high = narrowed.end();
  }
  return whole;
}

std::vector<Unigram::Best> Unigram::best_cuts(std::string_view text) const {
  std::vector<Best> best(text.size() + 1, {-std::numeric_limits<double>::max(), unknown_, 0});
  best[0].score = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::min(character_length(text[at]), text.size() - at);
    if (!extend(text, at, length, best)) {
      const double score = best[at].score + unknown_score_;
      if (Best& there = best[at + length]; score > there.score) there = {score, unknown_, static_cast<uint32_t>(at)};
    }
    at += length;
  }
  return best;
}

Result<void> Unigram::encode(std::string_view text, size_t offset, EncodedText& out) const {
  const std::string normal = TRY(normalised(text));
  if (normal.empty()) return {};
  const std::vector<Best> best = best_cuts(normal);
  const size_t before = out.ids.size();
  bool unknown_follows = false;
  for (size_t at = normal.size(); at > 0; at = best[at].begin) {
    const bool is_unknown = best[at].last == unknown_;
    if (!is_unknown || !unknown_follows) out.ids.push_back(best[at].last);
    unknown_follows = is_unknown;
  }
  std::reverse(out.ids.begin() + static_cast<ptrdiff_t>(before), out.ids.end());
  if (unknown_ == kNoToken && std::erase(out.ids, kNoToken) > 0) out.missing.push_back(offset);
  return {};
}

std::string Unigram::bytes_of(std::string_view token, TokenKind kind) const { return piece_bytes(token, kind); }

}  // namespace runahead
