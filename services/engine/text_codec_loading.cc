#include "services/engine/text_codec_loading.h"

#include <cstring>
#include <fstream>
#include <iterator>

#include "base/limits.h"
#include "base/log.h"
#include "base/utf8.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::unexpected<Error> refused(ErrorCode code, const std::string& message) {
  return fail(code, "--chat-template: " + message, "chat-template");
}

Result<std::string> read_template_text(const std::string& option) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(option, ignored)) {
    if (option.find_first_of("{}\n") != std::string::npos) return option;  // as vLLM and llama.cpp take it, too
    return refused(ErrorCode::kNotFound, "there is no file " + option + "; give the path of a Jinja template");
  }
  std::ifstream file(option, std::ios::binary);
  if (!file) return refused(ErrorCode::kNotFound, "cannot read " + option + ": " + std::strerror(errno));
  if (std::filesystem::file_size(option, ignored) > limits::kTemplateBytesMax)
    return refused(ErrorCode::kTooLarge, option + " is larger than " + std::to_string(limits::kTemplateBytesMax >> 20) +
                                             " MiB; give the path of a Jinja template");
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (const size_t valid = utf8_valid_prefix(text); valid < text.size())
    return refused(ErrorCode::kInvalidArgument, option + " is no UTF-8 text (byte " + std::to_string(valid) +
                                                    "); give the path of a Jinja template");
  if (text.empty()) return refused(ErrorCode::kInvalidArgument, option + " is empty");
  return text;
}

Result<std::optional<ChatTemplate>> read_own_template(const std::string& option) {
  if (option.empty()) return std::optional<ChatTemplate>();
  Result<ChatTemplate> parsed = ChatTemplate::parse(TRY(read_template_text(option)));
  if (!parsed) {
    const bool is_path = option.find_first_of("{}\n") == std::string::npos;
    return refused(ErrorCode::kInvalidArgument, (is_path ? option + ": " : "") + parsed.error().message);
  }
  return std::optional<ChatTemplate>(std::move(*parsed));
}

}  // namespace

Result<std::unique_ptr<ModelTextCodec>> open_text_codec(const Gguf& file, const std::string& chat_template,
                                                        std::function<std::tm()> today) {
  std::optional<ChatTemplate> own = TRY(read_own_template(chat_template));
  if (!own)
    if (const auto of_model = read_chat_template(file); !of_model)
      log::info("chats are refused, texts are served: {}", of_model.error().message);
  return ModelTextCodec::load(file, std::move(today), std::move(own));
}

Result<void> check_chat_template(const ModelFlags& model, const std::string& chat_template) {
  const Gguf file = TRY(open_model(model));
  if (TRY(read_own_template(chat_template))) return {};
  const auto of_model = read_chat_template(file);
  if (of_model) return {};
  return fail(of_model.error().code, of_model.error().message + ", or send the prompt as it is with --raw", "prompt");
}

}  // namespace runahead
