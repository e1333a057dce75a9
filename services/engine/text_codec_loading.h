// Builds the gateway's codec for a command or a service: the model's tokenizer, and a chat template from --chat-template or
// the model file.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "services/engine/engine_flags.h"
#include "services/engine/model_text_codec.h"

namespace runahead {

// chat_template: empty, the path of a Jinja file, or the template itself where it holds a brace. An error names the file and
// the line. A broken or missing template of the model itself is said in the log: texts are served, chats refused.
Result<std::unique_ptr<ModelTextCodec>> open_text_codec(const Gguf& file, const std::string& chat_template,
                                                        std::function<std::tm()> today);

// Whether a chat could be rendered, before any worker is started for it.
Result<void> check_chat_template(const ModelFlags& model, const std::string& chat_template);

}  // namespace runahead
