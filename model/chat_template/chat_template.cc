#include "model/chat_template/chat_template.h"

#include "model/chat_template/builtins.h"
#include "model/chat_template/interpreter.h"
#include "model/chat_template/json.h"
#include "model/chat_template/parser.h"

namespace runahead {

using nlohmann::ordered_json;

struct ChatTemplate::Tree {
  std::string source;
  jinja::Block root;
};

namespace {

using jinja::Args;
using jinja::Budget;
using jinja::Interpreter;
using jinja::Value;

// Text parts as one string, for templates that know strings only.
Result<std::string> join_parts(const ordered_json& parts) {
  std::string text;
  for (const auto& part : parts) {
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string();
    if (!is_text) {
      return fail(ErrorCode::kUnsupported, "this model takes text content only; send parts of type text", "messages");
    }
    if (!text.empty()) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

Result<ordered_json> with_string_content(const ordered_json& messages) {
  ordered_json result = messages;
  for (auto& message : result) {
    if (message.is_object() && message.contains("content") && message["content"].is_array()) {
      message["content"] = TRY(join_parts(message["content"]));
    }
  }
  return result;
}

Result<void> check_shape(const ChatInput& input) {
  if (!input.messages.is_array()) return fail(ErrorCode::kInvalidArgument, "messages must be an array", "messages");
  for (const auto& message : input.messages) {
    if (!message.is_object()) return fail(ErrorCode::kInvalidArgument, "a message must be an object", "messages");
  }
  if (!input.tools.is_null() && !input.tools.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "tools must be an array", "tools");
  }
  if (!input.variables.is_null() && !input.variables.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "template variables must be an object", "chat_template_kwargs");
  }
  return {};
}

Result<Value> format_date(const std::tm& now, const Args& args, Budget& budget) {
  const std::string format = TRY(jinja::string_argument(args, 0, "format"));
  char text[512];  // a date in any usual format is under 100 bytes
  const size_t length = std::strftime(text, sizeof(text), format.c_str(), &now);
  if (length == 0 && !format.empty()) return jinja::type_error("strftime_now: the format is empty or too long");
  budget.spend_bytes(length);
  return Value::string(std::string(text, length));
}

Result<void> define_inputs(Interpreter& interpreter, const ChatInput& input, const ordered_json& messages,
                           Budget& budget) {
  if (input.variables.is_object()) {
    for (const auto& [name, value] : input.variables.items()) {
      interpreter.define(name, TRY(jinja::from_json(value, budget)));
    }
  }
  interpreter.define("messages", TRY(jinja::from_json(messages, budget)));
  // Hugging Face passes none where there are no tools or documents.
  const bool has_tools = input.tools.is_array() && !input.tools.empty();
  interpreter.define("tools", has_tools ? TRY(jinja::from_json(input.tools, budget)) : Value::none());
  if (!input.variables.is_object() || !input.variables.contains("documents")) {
    interpreter.define("documents", Value::none());
  }
  interpreter.define("add_generation_prompt", Value::boolean(input.add_generation_prompt));
  interpreter.define("bos_token", Value::string(input.bos_token));
  interpreter.define("eos_token", Value::string(input.eos_token));
  if (input.now) {
    interpreter.define("strftime_now", Value::callable("strftime_now", [&input, &budget](const Args& args) {
                         return format_date(*input.now, args, budget);
                       }));
  }
  return {};
}

constexpr uint64_t kProbeStepsMax = 100'000;  // one short message takes some hundred

// Some show them beside a system message only, and some refuse one.
bool shows_tools(const ChatTemplate& chat_template) {
  ChatInput probe;
  probe.tools = ordered_json::parse(R"([{"type": "function", "function": {"name": "probe_tool", "description": "d",
                                         "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}])");
  probe.steps_max = kProbeStepsMax;
  probe.now = std::tm{.tm_mday = 1, .tm_year = 100};  // any date: some write one
  const auto shows = [&](const char* messages) {
    probe.messages = ordered_json::parse(messages);
    const auto rendered = chat_template.render(probe);
    return rendered && rendered->contains("probe_tool");
  };
  return shows(R"([{"role": "user", "content": "u"}])") ||
         shows(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])");
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string source) {
  auto tree = std::make_shared<Tree>();
  tree->root = TRY(jinja::parse_template(source));
  tree->source = std::move(source);
  ChatTemplate result;
  result.tree_ = std::move(tree);
  // Templates differ in whether they know content parts, and nothing in them says so: try one.
  ChatInput probe;
  probe.messages = ordered_json::parse(R"([{"role": "user", "content": [{"type": "text", "text": "probe-text"}]}])");
  probe.steps_max = kProbeStepsMax;
  result.accepts_parts_ = true;
  const auto rendered = result.render(probe);
  result.accepts_parts_ =
      rendered && rendered->find("probe-text") != std::string::npos && rendered->find("'type'") == std::string::npos;
  result.accepts_tools_ = shows_tools(result);
  return result;
}

const std::string& ChatTemplate::source() const { return tree_->source; }

Result<std::string> ChatTemplate::render(const ChatInput& input) const {
  TRY(check_shape(input));
  Budget budget(input.steps_max);
  Interpreter interpreter(budget);
  bool refused = false;
  interpreter.define("raise_exception", Value::callable("raise_exception", [&](const Args& args) -> Result<Value> {
                       refused = true;
                       return jinja::type_error(TRY(jinja::string_argument(args, 0, "message")));
                     }));
  TRY(define_inputs(interpreter, input, accepts_parts_ ? input.messages : TRY(with_string_content(input.messages)),
                    budget));
  auto text = interpreter.run(tree_->root);
  if (text) return text;
  Error error = std::move(text).error();
  if (refused) {
    error.message = "the model's chat template refuses these messages: " + error.message;
  } else {
    error.message = "line " + std::to_string(interpreter.line()) + " of the chat template failed: " + error.message;
  }
  return std::unexpected(std::move(error));
}

}  // namespace runahead
