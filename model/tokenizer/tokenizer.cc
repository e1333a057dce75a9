#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <cstdio>

#include "base/limits.h"
#include "model/tokenizer/token_roles.h"

namespace runahead {
namespace {

std::unexpected<Error> bad(const std::string& what) {
  return fail(ErrorCode::kInvalidModel, what + "; download or convert the model again");
}

Result<PreTokenizer> load_pre_tokenizer(const Gguf& file) {
  constexpr const char* kKey = "tokenizer.ggml.pre";
  if (file.has(kKey)) return PreTokenizer::load(TRY(file.str(kKey)));
  return fail(
      ErrorCode::kUnsupported,
      "the file does not say how its tokenizer cuts words (tokenizer.ggml.pre), as conversions of early 2024; convert "
      "the model anew, or name it: --override-kv tokenizer.ggml.pre=str:NAME (llama.cpp takes 'default')",
      kKey);
}

}  // namespace

struct Tokenizer::EncodeState {
  std::string_view text;  // all of it
  BytePairs::Work work;
  std::vector<std::string_view> pieces;
  std::string word;
  std::vector<TokenId> ids;
  std::vector<size_t> missing_in_piece, missing;  // offsets
};

Result<Tokenizer> Tokenizer::load(const Gguf& file) {
  const std::string_view kind = file.has("tokenizer.ggml.model") ? TRY(file.str("tokenizer.ggml.model")) : "none";
  if (kind == "none" || kind == "no_vocab")
    return fail(ErrorCode::kUnsupported, "the file holds no tokenizer (tokenizer.ggml.model); choose one that does",
                "tokenizer.ggml.model");
  if (kind != "gpt2")
    return fail(ErrorCode::kUnsupported, "a tokenizer of kind '" + std::string(kind) +
                                             "' is not supported; choose a model with byte-level BPE (kind gpt2)");
  if (TRY(file.boolean_or("tokenizer.ggml.normalizer.lowercase", false)))
    return fail(ErrorCode::kUnsupported,
                "a tokenizer that writes all text in lower case first is not supported; choose "
                "another model",
                "tokenizer.ggml.normalizer.lowercase");
  Tokenizer tokenizer(TRY(load_pre_tokenizer(file)));
  TRY(tokenizer.load_vocabulary(file));
  tokenizer.pairs_ =
      TRY(BytePairs::load(tokenizer.by_bytes_, tokenizer.vocab_size(), TRY(file.strings("tokenizer.ggml.merges"))));
  return tokenizer;
}

Result<void> Tokenizer::load_vocabulary(const Gguf& file) {
  const auto texts = TRY(file.strings("tokenizer.ggml.tokens"));
  if (texts.empty() || texts.size() > static_cast<size_t>(limits::kVocabMax))
    return bad("the vocabulary has " + std::to_string(texts.size()) + " tokens");
  special_ = TRY(read_special_tokens(file, static_cast<int32_t>(texts.size())));
  if (!file.has("tokenizer.ggml.add_bos_token")) special_.add_bos = pre_.adds_bos() && special_.bos != kNoToken;
  TokenRoles roles = TRY(read_token_roles(file, texts, special_));
  end_tokens_ = std::move(roles.end_tokens);
  tokens_.resize(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    Token& token = tokens_[i];
    token.is_control = roles.kinds[i] == TokenKind::kControl;
    if (roles.kinds[i] != TokenKind::kText) {
      token.bytes = texts[i];
      matcher_.add(token.bytes, id, token.is_control);
    } else if (bytes_from_stand_ins(texts[i], token.bytes)) {
      by_bytes_.try_emplace(token.bytes, id);
    } else {
      token.bytes = texts[i];  // no text becomes it, but the model may still say it
    }
  }
  return {};
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool parse_special) const {
  if (text.size() > limits::kTextBytesMax)
    return fail(ErrorCode::kTooLarge, "the text has " + std::to_string(text.size()) + " bytes; at most " +
                                          std::to_string(limits::kTextBytesMax) + " are taken");
  EncodeState state{.text = text};
  size_t plain = 0;  // where the text that no special token has taken begins
  for (size_t at = 0; at < text.size();) {
    const SpecialTokenMatcher::Match match = matcher_.match(text.substr(at), parse_special);
    if (match.bytes == 0) {
      ++at;
      continue;
    }
    TRY(encode_plain(text.substr(plain, at - plain), state));
    state.ids.push_back(match.id);
    at += match.bytes;
    plain = at;
  }
  TRY(encode_plain(text.substr(plain), state));
  if (!state.missing.empty()) return missing_bytes(text, state.missing);
  return std::move(state.ids);
}

Tokenizer::Spelled Tokenizer::find_control(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    const SpecialTokenMatcher::Match match = matcher_.match(text.substr(at), true);
    if (match.bytes > 0 && is_control(match.id)) return {at, match.bytes, match.id};
  }
  return {text.size(), 0, kNoToken};
}

Result<void> Tokenizer::encode_plain(std::string_view text, EncodeState& state) const {
  state.pieces.clear();
  TRY(pre_.split(text, state.pieces));
  for (const std::string_view piece : state.pieces) {
    if (pre_.ignore_merges()) {
      state.word = piece;
      if (const auto whole = by_bytes_.find(state.word); whole != by_bytes_.end()) {
        state.ids.push_back(whole->second);
        continue;
      }
    }
    state.missing_in_piece.clear();
    pairs_.encode(piece, state.work, state.ids, state.missing_in_piece);
    const auto offset = static_cast<size_t>(piece.data() - state.text.data());
    for (const size_t in_piece : state.missing_in_piece) state.missing.push_back(offset + in_piece);
  }
  return {};
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
  return id >= 0 && id < vocab_size() && tokens_[static_cast<size_t>(id)].is_control;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool with_control) const {
  std::string out;
  for (const TokenId id : ids) {
    if (with_control || !is_control(id)) out += token_bytes(id);
  }
  return out;
}

bool Tokenizer::is_end(TokenId id) const { return std::ranges::binary_search(end_tokens_, id); }

}  // namespace runahead
