#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/limits.h"
#include "model/tokenizer/byte_level_bpe.h"
#include "model/tokenizer/merged_characters.h"
#include "model/tokenizer/scored_pairs.h"
#include "model/tokenizer/unigram.h"
#include "model/weights/hf_tokenizer.h"

namespace runahead {
namespace {

constexpr const char* kAdded = "runahead.tokenizer.added";  // of a folder (model/weights/hf_tokenizer.h); ids ascend

std::unexpected<Error> bad(const std::string& what) {
  return fail(ErrorCode::kInvalidModel, what + "; download or convert the model again");
}

using LoadEncoder = Result<std::unique_ptr<const PlainEncoder>>(const Gguf& file, const Vocabulary& vocabulary);

struct Kind {
  std::string_view name;  // tokenizer.ggml.model
  LoadEncoder* load;
};
constexpr Kind kKinds[] = {{"gpt2", ByteLevelBpe::load},
                           {"llama", ScoredPairs::load},
                           {"t5", Unigram::load},
                           {"unigram", Unigram::load_folder},
                           {"merged-characters", MergedCharacters::load}};

// Kinds of llama.cpp that are not built, and what they are.
constexpr std::pair<std::string_view, std::string_view> kOtherKinds[] = {
    {"bert", "WordPiece, of BERT and other embedding models"},
    {"rwkv", "the longest match of RWKV"},
    {"plamo2", "the table of PLaMo 2"},
    {"gemma4", "the merges of Gemma 4, over characters"},
    {"hybriddna", "k-mers of DNA"},
    {"whitespace", "whole words"}};

Result<LoadEncoder*> find_kind(std::string_view name) {
  constexpr const char* kKey = "tokenizer.ggml.model";
  if (name == "none" || name == "no_vocab")
    return fail(ErrorCode::kUnsupported, "the file holds no tokenizer (tokenizer.ggml.model); choose one that does",
                kKey);
  for (const Kind& kind : kKinds)
    if (kind.name == name) return kind.load;
  std::string what;
  for (const auto& [other, is] : kOtherKinds)
    if (other == name) what = " (" + std::string(is) + ")";
  return fail(ErrorCode::kUnsupported,
              "a tokenizer of kind " + quoted(name) + what +
                  " is not supported; choose a model whose tokenizer.ggml.model is gpt2, llama or t5",
              kKey);
}

// Phi-3's special tokens take the spaces behind them, and no key says so: its name does, to llama.cpp, too.
bool special_tokens_take_spaces(const Gguf& file) {
  const auto name = file.str("general.name");
  std::string lower(name ? *name : std::string_view());
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower.contains("phi-3") || lower.contains("phi3");
}

}  // namespace

Result<Tokenizer> Tokenizer::load(const Gguf& file) {
  Tokenizer tokenizer;
  TRY(tokenizer.load_vocabulary(file,
                                file.has("tokenizer.ggml.model") ? TRY(file.str("tokenizer.ggml.model")) : "none"));
  return tokenizer;
}

Result<void> Tokenizer::load_vocabulary(const Gguf& file, std::string_view kind) {
  LoadEncoder* const load_encoder = TRY(find_kind(kind));
  Vocabulary vocabulary;
  vocabulary.texts = TRY(file.strings("tokenizer.ggml.tokens"));
  const size_t count = vocabulary.texts.size();
  if (count == 0 || count > static_cast<size_t>(limits::kVocabMax))
    return bad("the vocabulary has " + std::to_string(count) + " tokens");
  special_ = TRY(read_special_tokens(file, static_cast<int32_t>(count)));
  TokenRoles roles = TRY(read_token_roles(file, vocabulary.texts, special_));
  end_tokens_ = std::move(roles.end_tokens);
  vocabulary.kinds = std::move(roles.kinds);
  const std::vector<int32_t> added = file.has(kAdded) ? TRY(file.i32s(kAdded)) : std::vector<int32_t>();
  vocabulary.of_model.resize(added.empty() ? 0 : count);
  for (size_t i = 0; i + 1 < added.size(); i += 2)
    if (added[i] >= 0 && std::cmp_less(added[i], count) && (added[i + 1] & kHfOfModel) != 0)
      vocabulary.of_model[static_cast<size_t>(added[i])] = true;
  plain_ = TRY(load_encoder(file, vocabulary));
  if (!file.has("tokenizer.ggml.add_bos_token") && plain_->adds_bos()) special_.add_bos = special_.bos != kNoToken;
  tokens_.resize(count);
  return add_tokens(file, vocabulary, added);
}

Result<void> Tokenizer::add_tokens(const Gguf& file, const Vocabulary& vocabulary, std::span<const int32_t> added) {
  constexpr std::string_view kNeverTake[] = {"<unk>", "<s>", "<|endoftext|>"};
  const bool all_take = !file.has(kAdded) && special_tokens_take_spaces(file);
  for (size_t i = 1; i < added.size(); i += 2)
    if (!finds_in_normal_ && (added[i] & kHfNormalized) != 0) finds_in_normal_.emplace();
  for (size_t i = 0, next = 0; i < vocabulary.texts.size(); ++i) {
    int32_t flags = 0;
    if (next + 1 < added.size() && std::cmp_equal(added[next], i)) flags = added[next + 1], next += 2;
    const bool takes = all_take && std::ranges::find(kNeverTake, vocabulary.texts[i]) == std::end(kNeverTake);
    TRY(add_token(vocabulary, i,
                  {.takes_ascii_spaces = takes,
                   .lstrip = (flags & kHfLstrip) != 0,
                   .rstrip = (flags & kHfRstrip) != 0,
                   .single_word = (flags & kHfSingleWord) != 0},
                  (flags & kHfNormalized) != 0));
  }
  return {};
}

Result<void> Tokenizer::add_token(const Vocabulary& vocabulary, size_t index, const TokenSurroundings& surroundings,
                                  bool is_normal) {
  const std::string_view text = vocabulary.texts[index];
  const auto id = static_cast<TokenId>(index);
  Token& token = tokens_[index];
  token.kind = vocabulary.kinds[index];
  const bool is_control = token.kind == TokenKind::kControl;
  token.bytes = is_control ? std::string(text) : plain_->bytes_of(text, token.kind);
  if (token.kind == TokenKind::kText) return {};
  token.is_cut_out = is_control || token.bytes == text;  // one with U+2581 is made by scores
  token.is_normal = is_normal;
  spelled_.add(text, id, is_control, surroundings);
  if (!finds_in_normal_) return {};
  if (!is_normal) {
    finds_in_normal_->before.add(text, id, is_control, surroundings);
    return {};
  }
  const std::string normal = TRY(plain_->normalised(text));
  if (normal.empty())
    return fail(ErrorCode::kUnsupported, "the added token " + quoted(text) +
                                             ", of which the normaliser leaves nothing, is not supported; choose "
                                             "another model, or its GGUF file");
  finds_in_normal_->behind.add(normal, id, is_control, surroundings);
  return {};
}

namespace {

// Calls `plain(text, offset)` for what no token has taken, and puts the tokens' ids among what that appends to `ids`.
template <typename Plain>
Result<void> cut_out(const SpecialTokenMatcher& matcher, std::string_view text, bool with_control,
                     std::vector<TokenId>& ids, const Plain& plain) {
  size_t taken = 0;
  for (size_t from = 0;;) {
    const SpecialTokenMatcher::Match match = matcher.next(text, from, taken, with_control);
    if (taken < match.begin) TRY(plain(text.substr(taken, match.begin - taken), taken));
    if (match.id == kNoToken) return {};
    ids.push_back(match.id);
    from = match.resume, taken = match.end;
  }
}

}  // namespace

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool parse_special) const {
  if (text.size() > limits::kTextBytesMax)
    return fail(ErrorCode::kTooLarge, "the text has " + std::to_string(text.size()) + " bytes; at most " +
                                          std::to_string(limits::kTextBytesMax) + " are taken");
  EncodedText encoded;
  if (!finds_in_normal_) {
    TRY(cut_out(spelled_, text, parse_special, encoded.ids,
                [&](std::string_view plain, size_t at) { return plain_->encode(plain, at, encoded); }));
  } else {
    TRY(cut_out(finds_in_normal_->before, text, parse_special, encoded.ids,
                [&](std::string_view plain, size_t at) { return encode_stretch(plain, at, parse_special, encoded); }));
  }
  if (!encoded.missing.empty()) return missing_bytes(text, encoded.missing);
  return std::move(encoded.ids);
}

Result<void> Tokenizer::encode_stretch(std::string_view text, size_t offset, bool parse_special,
                                       EncodedText& out) const {
  const std::string normal = TRY(plain_->normalised(text));
  return cut_out(finds_in_normal_->behind, normal, parse_special, out.ids,
                 [&](std::string_view plain, size_t at) { return plain_->encode_normal(plain, offset + at, out); });
}

Tokenizer::Spelled Tokenizer::find_control(std::string_view text, size_t from) const {
  for (size_t taken = from;;) {
    const SpecialTokenMatcher::Match match = spelled_.next(text, from, taken, true);
    if (match.id == kNoToken || is_control(match.id))
      return {.at = match.begin,
              .bytes = match.end - match.begin,
              .own_at = match.own_begin,
              .own_bytes = match.own_end - match.own_begin,
              .id = match.id};
    from = match.resume, taken = match.end;
  }
}

std::unexpected<Error> Tokenizer::missing_bytes(std::string_view text, const std::vector<size_t>& offsets) const {
  constexpr size_t kNamed = 8;
  std::string list;
  for (size_t i = 0; i < std::min(offsets.size(), kNamed); ++i) {
    char entry[48];
    std::snprintf(entry, sizeof(entry), "%s0x%02X at %zu", i == 0 ? "" : ", ", static_cast<uint8_t>(text[offsets[i]]),
                  offsets[i]);
    list += entry;
  }
  if (offsets.size() > kNamed) list += ", ...";
  return fail(ErrorCode::kInvalidArgument, "the model's vocabulary has no token for " + std::to_string(offsets.size()) +
                                               " of the text's bytes (" + list + "); remove them");
}

void Tokenizer::add_bos_eos(std::vector<TokenId>& ids) const {
  if (special_.add_bos && (ids.empty() || ids.front() != special_.bos)) ids.insert(ids.begin(), special_.bos);
  if (special_.add_eos && (ids.empty() || ids.back() != special_.eos)) ids.push_back(special_.eos);
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(tokens_[static_cast<size_t>(id)].bytes) : std::string_view();
}

bool Tokenizer::is_control(TokenId id) const {
  return id >= 0 && id < vocab_size() && tokens_[static_cast<size_t>(id)].kind == TokenKind::kControl;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool with_control) const {
  std::string out;
  bool begins = plain_->adds_space() || plain_->adds_first_space();  // a stretch that encode put a space in front of
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size()) continue;
    const Token& token = tokens_[static_cast<size_t>(id)];
    if (with_control || token.kind != TokenKind::kControl)
      out += std::string_view(token.bytes).substr(begins && !token.is_cut_out && token.bytes.starts_with(' ') ? 1 : 0);
    const bool adds_behind = token.is_normal ? plain_->adds_space_to_normal() : plain_->adds_space() || begins;
    begins = token.is_cut_out && adds_behind;
  }
  return out;
}

bool Tokenizer::is_end(TokenId id) const { return std::ranges::binary_search(end_tokens_, id); }

}  // namespace runahead
