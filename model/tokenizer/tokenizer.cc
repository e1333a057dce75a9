#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/limits.h"
#include "model/tokenizer/byte_level_bpe.h"
#include "model/tokenizer/merged_characters.h"
#include "model/tokenizer/scored_pairs.h"
#include "model/tokenizer/unigram.h"

namespace runahead {
namespace {

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
  plain_ = TRY(load_encoder(file, vocabulary));
  if (!file.has("tokenizer.ggml.add_bos_token") && plain_->adds_bos()) special_.add_bos = special_.bos != kNoToken;
  tokens_.resize(count);
  constexpr const char* kTakers = "runahead.tokenizer.takes_spaces";  // a folder names them (hf_tokenizer.h); ascending
  const bool named = file.has(kTakers), all = !named && special_tokens_take_spaces(file);
  const std::vector<int32_t> takers = named ? TRY(file.i32s(kTakers)) : std::vector<int32_t>();
  constexpr std::string_view kNeverTake[] = {"<unk>", "<s>", "<|endoftext|>"};
  for (size_t i = 0; i < count; ++i) {
    const bool may = all && std::ranges::find(kNeverTake, vocabulary.texts[i]) == std::end(kNeverTake);
    add_token(vocabulary, i, may || std::ranges::binary_search(takers, static_cast<int32_t>(i)));
  }
  return {};
}

void Tokenizer::add_token(const Vocabulary& vocabulary, size_t index, bool takes_spaces) {
  const std::string_view text = vocabulary.texts[index];
  Token& token = tokens_[index];
  token.kind = vocabulary.kinds[index];
  const bool is_control = token.kind == TokenKind::kControl;
  token.bytes = is_control ? std::string(text) : plain_->bytes_of(text, token.kind);
  if (token.kind == TokenKind::kText) return;
  token.is_cut_out = is_control || token.bytes == text;  // one with U+2581 is made by scores
  matcher_.add(text, static_cast<TokenId>(index), is_control, takes_spaces);
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool parse_special) const {
  if (text.size() > limits::kTextBytesMax)
    return fail(ErrorCode::kTooLarge, "the text has " + std::to_string(text.size()) + " bytes; at most " +
                                          std::to_string(limits::kTextBytesMax) + " are taken");
  EncodedText encoded;
  size_t plain = 0;  // where the text that no special token has taken begins
  const auto encode_plain = [&](size_t end) -> Result<void> {
    return plain < end ? plain_->encode(text.substr(plain, end - plain), plain, encoded) : Result<void>();
  };
  for (size_t at = 0; at < text.size();) {
    const SpecialTokenMatcher::Match match = matcher_.match(text.substr(at), parse_special);
    if (match.bytes == 0) {
      ++at;
      continue;
    }
    TRY(encode_plain(at));
    encoded.ids.push_back(match.id);
    at += match.bytes;
    plain = at;
  }
  TRY(encode_plain(text.size()));
  if (!encoded.missing.empty()) return missing_bytes(text, encoded.missing);
  return std::move(encoded.ids);
}

Tokenizer::Spelled Tokenizer::find_control(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    const SpecialTokenMatcher::Match match = matcher_.match(text.substr(at), true);
    if (match.bytes > 0 && is_control(match.id)) return {at, match.bytes, match.id};
  }
  return {text.size(), 0, kNoToken};
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
    begins = token.is_cut_out && (plain_->adds_space() || begins);
  }
  return out;
}

bool Tokenizer::is_end(TokenId id) const { return std::ranges::binary_search(end_tokens_, id); }

}  // namespace runahead
