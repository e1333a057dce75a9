#include "services/gateway/request/messages_request.h"

#include <array>

#include "base/limits.h"
#include "services/gateway/request/message_tools.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

// Without effect here: who asked, where and how fast Anthropic's own service computes; where a cache may cut.
constexpr std::array kIgnoredOfMessages = {"metadata"sv, "service_tier"sv, "inference_geo"sv,
                                           "speed"sv,    "diagnostics"sv,  "cache_control"sv};
constexpr std::array kUnsupportedOfMessages = {"mcp_servers"sv, "container"sv, "context_management"sv,
                                               "output_config"sv};

// What both APIs call the same, with the same meaning.
constexpr std::array kSameOfMessages = {"model"sv, "max_tokens"sv, "stream"sv,     "top_p"sv,
                                        "top_k"sv, "runahead"sv,   "cache_salt"sv, "seed"sv};

void take_temperature(JsonReader& reader, json& chat) {
  if (const auto temperature = reader.number("temperature", 0, 1)) chat["temperature"] = *temperature;
}

void take_stop_sequences(JsonReader& reader, json& chat) {
  const json* list = reader.array("stop_sequences", static_cast<size_t>(limits::kStopStringsMax));
  if (list == nullptr) return;
  for (const json& entry : *list) {
    const bool fits = entry.is_string() && !entry.get_ref<const std::string&>().empty() &&
                      entry.get_ref<const std::string&>().size() <= limits::kStopStringBytesMax;
    if (!fits) return reader.error("stop_sequences", "must hold strings of 1 to 1024 bytes");
  }
  chat["stop"] = *list;
}

void take_thinking(JsonReader& reader, std::optional<Error>& error) {
  const json* thinking = reader.object("thinking");
  if (thinking == nullptr) return;
  JsonReader inner(*thinking, "thinking", error);
  if (inner.string("type", kNameBytesMax).value_or("") != "disabled")
    inner.error("type", "other than 'disabled' is not supported", ErrorCode::kUnsupported);
}

// {"role", "content"} of user and assistant, checked further as a chat's; `system` before them.
json chat_messages(JsonReader& reader, std::optional<Error>& error) {
  json messages = json::array();
  const json* system = reader.take("system");
  if (system != nullptr && !system->is_string() && !system->is_array())
    return reader.error("system", "must be text, or a list of blocks"), messages;
  if (system != nullptr && !says_nothing(*system)) messages.push_back({{"role", "system"}, {"content", *system}});
  const json* list = reader.array("messages", limits::kMessagesMax - 1);
  if (list == nullptr || list->empty()) return reader.error("messages", "is missing or empty"), messages;
  for (size_t i = 0; i < list->size(); ++i) {
    const json& entry = (*list)[i];
    const std::string field = "messages[" + std::to_string(i) + "]";
    if (!entry.is_object()) return reader.error(field, "must be an object with role and content"), messages;
    const json role = entry.contains("role") ? entry["role"] : json();
    if (role != "user" && role != "assistant")
      return reader.error(field + ".role", "must be user or assistant"), messages;
    add_chat_messages(entry, field, messages, error);
  }
  if (list->back()["role"] != "user")
    reader.error("messages", "must end with one of the user: an answer that is begun is not continued",
                 ErrorCode::kUnsupported);
  return messages;
}

}  // namespace

Result<GenerationRequest> parse_messages(const json& body, const ServedModel& model, MessagesUse use) {
  std::optional<Error> error;
  JsonReader reader(body, "", error);
  json chat = json::object();
  for (const std::string_view field : kSameOfMessages)
    if (const json* value = reader.take(field)) chat[field] = *value;
  if (use == MessagesUse::kAnswer && !chat.contains("max_tokens")) reader.error("max_tokens", "is missing");
  if (use == MessagesUse::kCountTokens) chat["max_tokens"] = 1;
  take_temperature(reader, chat);
  take_stop_sequences(reader, chat);
  take_thinking(reader, error);
  chat["messages"] = chat_messages(reader, error);
  take_message_tools(reader, chat, error);
  reader.ignore(kIgnoredOfMessages);
  reader.unsupported(kUnsupportedOfMessages);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  return parse_generation(Endpoint::kChat, chat, model);
}

}  // namespace runahead
