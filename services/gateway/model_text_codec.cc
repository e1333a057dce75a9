#include "services/gateway/model_text_codec.h"

namespace runahead {
namespace {

constexpr const char* kTemplateKey = "tokenizer.chat_template";

}  // namespace

Result<std::unique_ptr<ModelTextCodec>> ModelTextCodec::load(const Gguf& file, std::function<std::tm()> today) {
  Tokenizer tokenizer = TRY(Tokenizer::load(file));
  std::optional<ChatTemplate> chat_template;
  if (file.has(kTemplateKey)) chat_template = TRY(ChatTemplate::parse(std::string(TRY(file.str(kTemplateKey)))));
  return std::unique_ptr<ModelTextCodec>(
      new ModelTextCodec(std::move(tokenizer), std::move(chat_template), std::move(today)));
}

// An end-of-text token that a file asks for is not added: the prompt goes on.
Result<std::vector<TokenId>> ModelTextCodec::encode(std::string_view text, bool add_special, bool parse_special) const {
  std::vector<TokenId> tokens = TRY(tokenizer_.encode(text, parse_special));
  const SpecialTokens& special = tokenizer_.special();
  const bool wants_bos = add_special && special.add_bos && special.bos >= 0;
  if (wants_bos && (tokens.empty() || tokens.front() != special.bos)) tokens.insert(tokens.begin(), special.bos);
  return tokens;
}

std::string ModelTextCodec::token_bytes(TokenId token) const {
  return tokenizer_.is_control(token) ? std::string() : std::string(tokenizer_.token_bytes(token));
}

std::string ModelTextCodec::decode(std::span<const TokenId> tokens) const {
  return tokenizer_.decode(tokens, true);
}

Result<std::string> ModelTextCodec::render_chat(const nlohmann::ordered_json& messages,
                                                bool add_generation_prompt) const {
  if (!template_)
    return fail(ErrorCode::kUnsupported, "this model has no chat template; use /v1/completions", "messages");
  const auto spelled = [this](TokenId token) {
    return token < 0 ? std::string() : std::string(tokenizer_.token_bytes(token));
  };
  ChatInput input;
  input.messages = messages;
  input.add_generation_prompt = add_generation_prompt;
  input.bos_token = spelled(tokenizer_.special().bos);
  input.eos_token = spelled(tokenizer_.special().eos);
  input.now = today_();
  Result<std::string> text = template_->render(input);
  if (!text && text.error().param.empty()) text.error().param = "messages";
  return text;
}

}  // namespace runahead
