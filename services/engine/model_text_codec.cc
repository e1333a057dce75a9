#include "services/engine/model_text_codec.h"

#include <algorithm>

namespace runahead {
namespace {

constexpr const char* kTemplateKey = "tokenizer.chat_template";
// Noncharacters of Unicode: they stand around the number of a quoted control token while a template is rendered.
constexpr std::string_view kQuoteBegin = "\xEF\xB7\x90", kQuoteEnd = "\xEF\xB7\x91";

// What messages only quote, taken out of them before the template is rendered, and put back as plain text afterwards.
class Quotes {
 public:
  explicit Quotes(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void hide(nlohmann::ordered_json& value) {
    if (value.is_string()) value = hidden(value.get<std::string>());
    if (value.is_object()) hide_names(value);
    if (value.is_structured())
      for (auto& inner : value) hide(inner);
  }
  std::string shown(std::string_view text) const {
    std::string out;
    for (size_t begin; (begin = text.find(kQuoteBegin)) != std::string_view::npos;) {
      const size_t end = text.find(kQuoteEnd, begin);
      if (end == std::string_view::npos) break;
      const std::string number(text.substr(begin + kQuoteBegin.size(), end - begin - kQuoteBegin.size()));
      out += text.substr(0, begin);
      out += quotes_[static_cast<size_t>(std::stoul(number))];
      text.remove_prefix(end + kQuoteEnd.size());
    }
    return out += text;
  }

 private:
  void hide_names(nlohmann::ordered_json& object) {
    nlohmann::ordered_json::object_t
        renamed;  // unlike names stay so; emplace_back is the vector's, which looks for none
    for (auto& [name, value] : object.items()) renamed.emplace_back(hidden(name), std::move(value));
    object = std::move(renamed);
  }
  std::string hidden(std::string_view text) {
    std::string out;
    Tokenizer::Spelled token = tokenizer_.find_control(text, 0);
    size_t own = text.find(kQuoteBegin);  // the message's own noncharacter
    for (size_t at = 0; at < text.size();) {
      if (token.own_at < at) token = tokenizer_.find_control(text, at);
      if (own < at) own = text.find(kQuoteBegin, at);
      const size_t place = std::min(own, token.own_at);
      const size_t length = own < token.own_at ? kQuoteBegin.size() : token.own_bytes;
      out += text.substr(at, place - at);
      if (length > 0) {
        out += std::string(kQuoteBegin) + std::to_string(quotes_.size()) + std::string(kQuoteEnd);
        quotes_.emplace_back(text.substr(place, length));
      }
      at = place + length;
    }
    return out;
  }

  const Tokenizer& tokenizer_;
  std::vector<std::string> quotes_;
};

constexpr const char* kNoTools =
    "this model's chat template shows the model no tools, so that it cannot call any; leave out tools, calls of them "
    "and their answers, or give a template that shows them with --chat-template FILE";

// The first field that has to do with tools; empty: none.
std::string field_of_tools(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools) {
  if (!tools.empty()) return "tools";
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string path = "messages[" + std::to_string(i) + "]";
    if (messages[i].contains("tool_calls")) return path + ".tool_calls";
    if (messages[i].value("role", "") == "tool") return path + ".role";
  }
  return {};
}

}  // namespace

Result<ChatTemplate> read_chat_template(const Gguf& file) {
  Result<std::string_view> source = file.has(kTemplateKey) ? file.str(kTemplateKey) : Result<std::string_view>("");
  if (source && source->empty()) {
    const bool named = file.has("tokenizer.chat_templates");
    return fail(
        ErrorCode::kUnsupported,
        std::string(named ? "this model has chat templates for special uses only" : "this model has no chat template") +
            "; give one with --chat-template FILE",
        "messages");
  }
  Result<ChatTemplate> parsed = ChatTemplate::parse(std::string(TRY(source)));
  if (!parsed)
    return fail(ErrorCode::kUnsupported,
                "this model's chat template cannot be used: " + parsed.error().message +
                    "; give a mended one with --chat-template FILE",
                "messages");
  return parsed;
}

Result<std::unique_ptr<ModelTextCodec>> ModelTextCodec::load(const Gguf& file, std::function<std::tm()> today,
                                                             std::optional<ChatTemplate> own) {
  Tokenizer tokenizer = TRY(Tokenizer::load(file));
  Result<ChatTemplate> chat_template = own ? Result<ChatTemplate>(std::move(*own)) : read_chat_template(file);
  return std::unique_ptr<ModelTextCodec>(
      new ModelTextCodec(std::move(tokenizer), std::move(chat_template), std::move(today)));
}

Result<std::vector<TokenId>> ModelTextCodec::encode(std::string_view text, bool add_special, bool parse_special) const {
  std::vector<TokenId> tokens = TRY(tokenizer_.encode(text, parse_special));
  if (add_special) tokenizer_.add_bos_eos(tokens);
  return tokens;
}

std::string ModelTextCodec::token_bytes(TokenId token) const {
  return tokenizer_.is_control(token) ? std::string() : std::string(tokenizer_.token_bytes(token));
}

std::string ModelTextCodec::decode(std::span<const TokenId> tokens) const { return tokenizer_.decode(tokens, true); }

Result<ToolFormat> ModelTextCodec::tool_format() const {
  if (!template_) return fail(ErrorCode::kUnsupported, template_.error().message, "tools");
  if (!template_->accepts_tools()) return fail(ErrorCode::kUnsupported, kNoTools, "tools");
  const auto format = tool_format_of(template_->source());
  if (format) return *format;
  return fail(
      ErrorCode::kUnsupported,
      "this model's chat template shows tools, but in no form whose calls are read here: that of Hermes and Qwen, of "
      "Llama 3.1, of Mistral Nemo or of Qwen3-Coder; leave out 'tools'",
      "tools");
}

Result<std::string> ModelTextCodec::render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                                const nlohmann::ordered_json& tools) const {
  if (!template_)
    return fail(ErrorCode::kUnsupported, template_.error().message + ", or use /v1/completions", "messages");
  if (const std::string asked = field_of_tools(messages, tools); !asked.empty() && !template_->accepts_tools())
    return fail(ErrorCode::kUnsupported, kNoTools, asked);
  const auto spelled = [this](TokenId token) {
    return token < 0 ? std::string() : std::string(tokenizer_.token_bytes(token));
  };
  ChatInput input;
  input.messages = messages;
  input.tools = tools;
  input.add_generation_prompt = add_generation_prompt;
  input.bos_token = spelled(tokenizer_.special().bos);
  input.eos_token = spelled(tokenizer_.special().eos);
  input.now = today_();
  Result<std::string> text = template_->render(input);
  if (!text && text.error().param.empty()) text.error().param = "messages";
  return text;
}

Result<std::vector<TokenId>> ModelTextCodec::encode_chat(const nlohmann::ordered_json& messages,
                                                         bool add_generation_prompt,
                                                         const nlohmann::ordered_json& tools) const {
  Quotes quotes(tokenizer_);
  nlohmann::ordered_json hidden = messages, hidden_tools = tools;
  quotes.hide(hidden);
  quotes.hide(hidden_tools);
  const std::string rendered = TRY(render_chat(hidden, add_generation_prompt, hidden_tools));
  std::string_view text = rendered;
  std::vector<TokenId> ids;
  if (const SpecialTokens& special = tokenizer_.special(); special.add_bos) {  // once, whoever writes it
    const std::string_view bos = tokenizer_.token_bytes(special.bos);
    if (text.starts_with(bos)) text.remove_prefix(bos.size());
    ids.push_back(special.bos);
  }
  for (size_t at = 0; at < text.size();) {
    const Tokenizer::Spelled control = tokenizer_.find_control(text, at);  // the template's own
    const std::string plain = quotes.shown(text.substr(at, control.at - at));
    const std::vector<TokenId> part = TRY(tokenizer_.encode(plain, false));
    ids.insert(ids.end(), part.begin(), part.end());
    if (control.bytes > 0) ids.push_back(control.id);
    at = control.at + control.bytes;
  }
  return ids;
}

}  // namespace runahead
