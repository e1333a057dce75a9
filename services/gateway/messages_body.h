// Anthropic's Messages API: its answers and events as values. Pure; any thread.
// Source: docs.anthropic.com, "Messages" and "Streaming messages", version 2023-06-01.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "services/gateway/generation.h"

namespace runahead {

struct MessageHead {
  std::string id;  // "msg_..."
  std::string model;
  int64_t prompt_tokens = 0;
};

// A text, or a call of a tool.
struct MessageBlock {
  std::string text;
  std::optional<ToolCall> call;
};

nlohmann::json message_body(const MessageHead& head, const std::vector<MessageBlock>& blocks,
                            const ChoiceResult& result);
// The events of a stream, each with the name that its "type" is.
nlohmann::json message_start(const MessageHead& head);
// block: as it begins, without text and arguments.
nlohmann::json content_block_start(int32_t index, const MessageBlock& block);
nlohmann::json text_delta(int32_t index, const std::string& text);
nlohmann::json input_json_delta(int32_t index, const std::string& json_text);
nlohmann::json content_block_stop(int32_t index);
nlohmann::json message_delta(const MessageHead& head, const ChoiceResult& result);
nlohmann::json message_stop();
nlohmann::json message_error(const Error& error);

}  // namespace runahead
