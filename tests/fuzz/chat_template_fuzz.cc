// Chat templates come with model files and messages from the network: neither may crash, hang or leak.
// The input is a template, a zero byte, and the text of a user message; both halves may be anything.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "model/chat_template/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using nlohmann::ordered_json;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = std::min(input.find('\0'), size);
  const auto parsed = runahead::ChatTemplate::parse(std::string(input.substr(0, split)));
  if (!parsed) {
    if (parsed.error().message.empty()) std::abort();
    return 0;
  }
  const std::string text(input.substr(std::min(split + 1, size)));
  runahead::ChatInput chat;
  chat.messages = ordered_json::array({{{"role", "system"}, {"content", "You are terse."}},
                                       {{"role", "user"}, {"content", text}},
                                       {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {{{"id", 1.5}}}}}});
  chat.tools = ordered_json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
  chat.variables = {{"l", {3, 1, 2}}, {"s", "Grüße"}, {"n", 7}, {"d", {{"b", 1}, {"a", true}}}};
  chat.now.emplace();
  chat.steps_max = 200'000;  // so that a sanitized render stays far under libFuzzer's timeout
  const auto first = parsed->render(chat);
  const auto second = parsed->render(chat);
  // A render has no state: the same input gives the same text, or the same error.
  if (first.has_value() != second.has_value() || (first && *first != *second)) std::abort();
  if (!first && first.error().message.empty()) std::abort();
  return 0;
}
