// ModelTextCodec: the TextCodec of production, from the model file's own tokenizer and chat template. The weights stay
// untouched.
#pragma once

#include <functional>
#include <optional>

#include "model/chat_template/chat_template.h"
#include "model/tokenizer/tokenizer.h"
#include "services/gateway/request/text_codec.h"

namespace runahead {

// The file's own template; kUnsupported if it has none, and what is wrong with it.
Result<ChatTemplate> read_chat_template(const Gguf& file);

class ModelTextCodec final : public TextCodec {
 public:
  // The file may be closed afterwards. `today` is what strftime_now of a template sees. chat_template: instead of the
  // file's. A file whose own template is missing or broken still serves texts; chats are then refused with the reason.
  static Result<std::unique_ptr<ModelTextCodec>> load(const Gguf& file, std::function<std::tm()> today,
                                                      std::optional<ChatTemplate> chat_template = {});

  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special, bool parse_special) const override;
  std::string token_bytes(TokenId token) const override;
  std::string decode(std::span<const TokenId> tokens) const override;
  Result<std::string> render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                  const nlohmann::ordered_json& tools = {}) const override;
  Result<std::vector<TokenId>> encode_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                           const nlohmann::ordered_json& tools = {}) const override;
  Result<ToolFormat> tool_format() const override;
  int32_t vocab_size() const override { return tokenizer_.vocab_size(); }
  std::vector<TokenId> end_tokens() const override { return tokenizer_.end_tokens(); }

 private:
  ModelTextCodec(Tokenizer tokenizer, Result<ChatTemplate> chat_template, std::function<std::tm()> today)
      : tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)), today_(std::move(today)) {}

  Tokenizer tokenizer_;
  Result<ChatTemplate> template_;  // or why chats are refused
  std::function<std::tm()> today_;
};

}  // namespace runahead
