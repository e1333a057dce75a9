// TextCodec: text to token ids and back, as the gateway needs it. Production: ModelTextCodec over the model's tokenizer
// and chat template; tests: a toy.
//   threads  const methods may be called from two threads at once (the io_context's and the gateway's text lane).
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "services/gateway/tools/tool_format.h"

namespace runahead {

class TextCodec {
 public:
  virtual ~TextCodec() = default;
  // add_special: the begin- and end-of-text tokens that the model wants, never twice. parse_special: "<|im_end|>" in the text is
  // that token, not its letters.
  virtual Result<std::vector<TokenId>> encode(std::string_view text, bool add_special, bool parse_special) const = 0;
  // The bytes that the token stands for: often no whole UTF-8 character; empty for control tokens.
  virtual std::string token_bytes(TokenId token) const = 0;
  // The bytes of all tokens; control tokens as they are spelled.
  virtual std::string decode(std::span<const TokenId> tokens) const = 0;
  // messages: as take_messages() gives them; tools: as ToolUse::shown. The prompt's text, control tokens spelled out.
  // kUnsupported for tools, calls of them and their answers where the template does not show tools.
  virtual Result<std::string> render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                          const nlohmann::ordered_json& tools = {}) const = 0;
  // The same as ids, begin-of-text in front if the model wants it and the template has not written it. Control tokens that
  // a message only quotes stay letters: nobody can end a turn from inside a message.
  virtual Result<std::vector<TokenId>> encode_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                                   const nlohmann::ordered_json& tools = {}) const = 0;
  // How this model calls tools; kUnsupported if its template shows none, or in a form that is not read.
  virtual Result<ToolFormat> tool_format() const {
    return fail(ErrorCode::kUnsupported, "this model has no chat template that shows tools", "tools");
  }
  virtual int32_t vocab_size() const = 0;
  virtual std::vector<TokenId> end_tokens() const = 0;  // any of them ends a generation
};

// A token's bytes; control tokens, which stand for none, as they are spelled.
inline std::string spelled(TokenId token, const TextCodec& codec) {
  std::string bytes = codec.token_bytes(token);
  return bytes.empty() ? codec.decode({&token, 1}) : bytes;
}

}  // namespace runahead
