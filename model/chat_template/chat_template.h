// ChatTemplate: turns a conversation into the text of a prompt by the model's own Jinja template.
//   like      Hugging Face's apply_chat_template: jinja2 with trim_blocks, lstrip_blocks, loop controls, the immutable
//             sandbox (list.append and the like fail), its tojson (no HTML escapes, keys in their order), `generation`
//             blocks. Checked by tests/golden/chat_templates.
//   unlike    Integers have 64 bits. Format specifications, %-formatting, groupby and a few rare filters end with
//             kUnsupported. `safe` changes nothing. Lazy filters (map, select) work at once, so an error in an element
//             that nobody takes is an error here.
//   threads   parse() and render() from anywhere; one ChatTemplate may render on several threads at the same time.
//   limits    base/limits.h kTemplate*: hostile templates and conversations end with an error, never a crash or hang.
//   errors    kInvalidModel     the template's text is malformed
//             kInvalidArgument  the template refuses the conversation (raise_exception), or that lacks a field
//             kUnsupported      a construct that is not built
//             kTooLarge         over a limit
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/limits.h"
#include "base/result.h"

namespace runahead {

struct ChatInput {
  // As in the OpenAI API: [{"role", "content", ...}]. The order of keys is kept, as tool schemas are printed in it:
  // parse request bodies as nlohmann::ordered_json.
  nlohmann::ordered_json messages;
  nlohmann::ordered_json tools;      // null or []: none
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  nlohmann::ordered_json variables;  // null or an object: what else the template may read, such as enable_thinking
  std::optional<std::tm> now;        // what strftime_now sees; without it, strftime_now is undefined
  uint64_t steps_max = limits::kTemplateStepsMax;  // lower where a second is too long for a hostile template
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> parse(std::string source);

  Result<std::string> render(const ChatInput& input) const;
  // Whether the template itself understands content given as a list of parts. If not, render() joins text parts with
  // newlines, and other parts are an error.
  bool accepts_parts() const { return accepts_parts_; }
  // Whether it shows tools to the model.
  bool accepts_tools() const { return accepts_tools_; }
  const std::string& source() const;

 private:
  struct Tree;

  std::shared_ptr<const Tree> tree_;  // shared by copies, never changed
  bool accepts_parts_ = false, accepts_tools_ = false;
};

}  // namespace runahead
