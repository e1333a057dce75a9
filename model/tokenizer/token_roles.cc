#include "model/tokenizer/token_roles.h"

#include <algorithm>
#include <array>
#include <set>
#include <span>
#include <string>
#include <unordered_map>

namespace runahead {
namespace {

// Types of tokens in tokenizer.ggml.token_type; the others are text.
constexpr int32_t kUnknownType = 2, kControlType = 3, kUserDefinedType = 4;

// Whatever a file says of them, these are control tokens and end an answer.
constexpr std::string_view kEndTexts[] = {"<|eot_id|>",
                                          "<|im_end|>",
                                          "<|end|>",
                                          "<|return|>",
                                          "<|call|>",
                                          "<|flush|>",
                                          "<|calls|>",
                                          "<end_of_turn>",
                                          "<|endoftext|>",
                                          "</s>",
                                          "<|eom_id|>",
                                          "<EOT>",
                                          "_<EOT>",
                                          "[EOT]",
                                          "[EOS]",
                                          "<|end_of_text|>",
                                          "<end_of_utterance>",
                                          "<eos>",
                                          "<turn|>",
                                          "<|tool_response>",
                                          "<｜end▁of▁sentence｜>",
                                          "[e~[",
                                          "<|ifm|im_end|>"};

// Tokens for filling in the middle of code: named by a key (the first that is there), or else found by their texts and then
// made control tokens.
struct InfillRole {
  std::array<std::string_view, 2> keys;  // of tokenizer.ggml; the second is the older name
  bool ends;  // an answer
  std::array<std::string_view, 9> texts;
};
constexpr InfillRole kInfillRoles[] = {
    {{"fim_pre_token_id", "prefix_token_id"},
     false,
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
      "<|prefix|>", "<|plamo:fim_prefix|>"}},
    {{"fim_suf_token_id", "suffix_token_id"},
     false,
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
      "<|suffix|>", "<|plamo:fim_suffix|>"}},
    {{"fim_mid_token_id", "middle_token_id"},
     false,
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
      "<|middle|>", "<|plamo:fim_middle|>"}},
    {{"fim_pad_token_id"}, true, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {{"fim_rep_token_id"}, true, {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {{"fim_sep_token_id"}, true, {"<|file_sep|>", "<|plamo:file_separator|>"}},
};

// gpt-oss writes its channels with these; they are part of its text.
constexpr std::string_view kChannelTexts[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

class Roles {
 public:
  Roles(const Gguf& file, const std::vector<std::string_view>& texts) : file_(file) {
    for (size_t i = 0; i < texts.size(); ++i) ids_.try_emplace(texts[i], static_cast<TokenId>(i));
  }

  Result<TokenRoles> read(size_t count, const SpecialTokens& special) {
    TRY(read_types(count));
    for (const InfillRole& role : kInfillRoles) TRY(find_infill(role));
    for (const std::string_view text : kEndTexts) make_end(id_of(text));
    for (const std::string_view text : kChannelTexts) set(id_of(text), TokenKind::kUserDefined);
    for (const TokenId id : {special.eos, special.eot, special.eom}) add_end(id);
    if (constexpr const char* kEnds = "runahead.tokenizer.ends"; file_.has(kEnds))  // of a folder (hf_tokenizer.h)
      for (const int32_t id : TRY(file_.i32s(kEnds)))
        if (id >= 0 && static_cast<size_t>(id) < count) add_end(id);
    mend_contradictions();
    return TokenRoles{.kinds = std::move(kinds_), .end_tokens = {ends_.begin(), ends_.end()}};
  }

 private:
  Result<void> read_types(size_t count) {
    kinds_.assign(count, TokenKind::kText);
    if (!file_.has("tokenizer.ggml.token_type")) return {};
    const auto types = TRY(file_.i32s("tokenizer.ggml.token_type"));
    if (types.size() < count)
      return fail(ErrorCode::kInvalidModel,
                  "tokenizer.ggml.token_type has " + std::to_string(types.size()) + " entries for " +
                      std::to_string(count) + " tokens: the conversion of this model was cut short; convert it again",
                  "tokenizer.ggml.token_type");
    for (size_t i = 0; i < count; ++i) {
      if (types[i] == kControlType || types[i] == kUnknownType) kinds_[i] = TokenKind::kControl;
      if (types[i] == kUserDefinedType) kinds_[i] = TokenKind::kUserDefined;
    }
    return {};
  }

  Result<void> find_infill(const InfillRole& role) {
    for (const std::string_view name : role.keys) {
      const std::string key = "tokenizer.ggml." + std::string(name);
      if (name.empty() || !file_.has(key)) continue;
      const uint64_t id = TRY(file_.u64(key));
      if (id >= kinds_.size()) continue;  // as if it were not there
      if (role.ends) add_end(static_cast<TokenId>(id));
      return {};
    }
    TokenId found = kNoToken;  // the lowest, where a vocabulary has several
    for (const std::string_view text : role.texts)
      if (const TokenId id = id_of(text); id != kNoToken && (found == kNoToken || id < found)) found = id;
    set(found, TokenKind::kControl);
    if (role.ends) add_end(found);
    return {};
  }

  // Families that write with a token what others end with.
  void mend_contradictions() {
    const auto ends = [this](std::string_view text) { return ends_.contains(id_of(text)); };
    const bool calls = ends("<|call|>") || ends("<|calls|>");
    if (calls && (ends("<|return|>") || ends("<|flush|>")) && ends("<|end|>"))
      unmake_end(id_of("<|end|>"), TokenKind::kUserDefined);
    if (ends("<|tool_response>") && ends("</s>")) unmake_end(id_of("</s>"), TokenKind::kText);
  }

  TokenId id_of(std::string_view text) const {
    const auto found = text.empty() ? ids_.end() : ids_.find(text);
    return found == ids_.end() ? kNoToken : found->second;
  }
  void set(TokenId id, TokenKind kind) {
    if (id != kNoToken) kinds_[static_cast<size_t>(id)] = kind;
  }
  void add_end(TokenId id) {
    if (id != kNoToken) ends_.insert(id);
  }
  void make_end(TokenId id) {
    set(id, TokenKind::kControl);
    add_end(id);
  }
  void unmake_end(TokenId id, TokenKind kind) {
    ends_.erase(id);
    set(id, kind);
  }

  const Gguf& file_;
  std::unordered_map<std::string_view, TokenId> ids_;
  std::vector<TokenKind> kinds_;
  std::set<TokenId> ends_;
};

}  // namespace

Result<TokenRoles> read_token_roles(const Gguf& file, const std::vector<std::string_view>& texts,
                                    const SpecialTokens& special) {
  return Roles(file, texts).read(texts.size(), special);
}

}  // namespace runahead
