#include "model/tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/utf8.h"
#include "model/tokenizer/sentence_pieces.h"

namespace runahead {
namespace {

constexpr TokenId kUnknownDefault = 2;  // T5's
constexpr float kUnknownPenalty = 10;  // SentencePiece's: under the worst token
constexpr int32_t kNormalType = 1, kUndefinedType = 0, kByteType = 6;  // of tokenizer.ggml.token_type

size_t character_length(std::string_view text) {
  const Utf8Sequence next = utf8_sequence(text);
  return next.kind == Utf8Sequence::Kind::kCharacter ? next.bytes : 1;
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
  index_pieces();
  return {};
}

Result<std::unique_ptr<const PlainEncoder>> Unigram::load_folder(const Gguf& file, const Vocabulary& vocabulary) {
  constexpr const char* kUnknown = "tokenizer.ggml.unknown_token_id";
  std::unique_ptr<Unigram> unigram(new Unigram);
  unigram->steps_ = TRY(TextSteps::load(file));
  unigram->adds_space_ = unigram->steps_->adds_space();
  if (file.has(kUnknown)) {
    const uint64_t unknown = TRY(file.u64(kUnknown));
    if (unknown < vocabulary.texts.size()) unigram->unknown_ = static_cast<TokenId>(unknown);
  }
  unigram->falls_back_ = TRY(file.boolean("runahead.tokenizer.byte_fallback"));
  TRY(unigram->load_folder_pieces(file, vocabulary));
  return unigram;
}

Result<void> Unigram::load_folder_pieces(const Gguf& file, const Vocabulary& vocabulary) {
  const std::vector<double> scores =
      TRY(file.f64s("tokenizer.ggml.scores"));  // of the model's tokens; added ones are behind
  if (scores.empty() || scores.size() > vocabulary.texts.size() ||
      !std::ranges::all_of(scores, [](double score) { return std::isfinite(score); }))
    return fail(ErrorCode::kInvalidModel,
                "the tokenizer's scores are not one number a token; download the model again");
  byte_tokens_.fill(kNoToken);
  for (size_t i = 0; i < scores.size(); ++i) {
    const std::string_view text = vocabulary.texts[i];
    const int byte = falls_back_ ? byte_of_piece(text) : -1;
    if (byte >= 0) byte_tokens_[static_cast<size_t>(byte)] = static_cast<TokenId>(i);
    if (byte >= 0 || text.empty() || vocabulary.kinds[i] == TokenKind::kControl) continue;
    pieces_.push_back({std::string(text), static_cast<TokenId>(i), scores[i]});
  }
  unknown_score_ = *std::ranges::min_element(scores) - double{kUnknownPenalty};
  index_pieces();
  return {};
}

void Unigram::index_pieces() {
  std::ranges::stable_sort(pieces_, {}, &Piece::text);
  const auto same = std::ranges::unique(pieces_, {}, &Piece::text);  // of equal ones the first id
  pieces_.erase(same.begin(), same.end());
  for (const Piece& piece : pieces_) ++begins_[static_cast<uint8_t>(piece.text[0]) + 1u];
  for (size_t byte = 0; byte < 256; ++byte) begins_[byte + 1] += begins_[byte];
}

Result<std::string> Unigram::normalised_by_rules(std::string_view text) const {
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
    if (out.size() > kNormalBytesMax)
      return fail(ErrorCode::kTooLarge, "the model's rules of normalising make a text of more than " +
                                            std::to_string(kNormalBytesMax) + " bytes of this one");
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
    const size_t length = character_length(text.substr(at));
    if (!extend(text, at, length, best)) {
      const double score = best[at].score + unknown_score_;
      if (Best& there = best[at + length]; score > there.score) there = {score, unknown_, static_cast<uint32_t>(at)};
    }
    at += length;
  }
  return best;
}

// What no token spells, its last byte first.
void Unigram::spell_backwards(std::string_view unknown, std::vector<TokenId>& out) const {
  const auto token_of = [this](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)]; };
  if (!falls_back_ || std::ranges::any_of(unknown, [&](char byte) { return token_of(byte) == kNoToken; }))
    return out.push_back(unknown_);
  for (size_t at = unknown.size(); at > 0; --at) out.push_back(token_of(unknown[at - 1]));
}

void Unigram::encode_word(std::string_view word, std::vector<TokenId>& out) const {
  const std::vector<Best> best = best_cuts(word);
  const size_t before = out.size();
  for (size_t at = word.size(); at > 0;) {
    size_t begin = best[at].begin;
    if (best[at].last != unknown_) {
      out.push_back(best[at].last);
    } else {
      while (begin > 0 && best[begin].last == unknown_) begin = best[begin].begin;
      spell_backwards(word.substr(begin, at - begin), out);
    }
    at = begin;
  }
  std::reverse(out.begin() + static_cast<ptrdiff_t>(before), out.end());
}

Result<std::string> Unigram::normalised(std::string_view text) const {
  return steps_ ? steps_->normalised(text) : normalised_by_rules(text);
}

Result<void> Unigram::encode(std::string_view text, size_t offset, EncodedText& out) const {
  return encode_normal(TRY(normalised(text)), offset, out);
}

Result<void> Unigram::encode_normal(std::string_view text, size_t offset, EncodedText& out) const {
  if (steps_) {
    const TextSteps::Words words = steps_->words(text, offset);
    const std::string_view all = words.text;
    for (size_t i = 0; i < words.begins.size(); ++i) {
      const size_t end = i + 1 < words.begins.size() ? words.begins[i + 1] : all.size();
      encode_word(all.substr(words.begins[i], end - words.begins[i]), out.ids);
    }
  } else {
    encode_word(text, out.ids);
  }
  if (unknown_ == kNoToken && std::erase(out.ids, kNoToken) > 0) out.missing.push_back(offset);
  return {};
}

std::string Unigram::bytes_of(std::string_view token, TokenKind kind) const { return piece_bytes(token, kind); }

}  // namespace runahead
