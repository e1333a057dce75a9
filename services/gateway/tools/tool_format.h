// How a family of models writes calls of tools into its answers. Found in the text of the model's chat template, which shows the
// model that form. Pure; any thread.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

namespace runahead {

enum class ToolFormat {
  kHermes,  // <tool_call>{"name": "f", "arguments": {...}}</tool_call>: Hermes, Qwen 2.5 and 3, SmolLM3, Falcon 3 (a list in it)
  kLlama,  // {"name": "f", "parameters": {...}}, perhaps behind <|python_tag|>: Llama 3.1 and later
  kMistral,  // [TOOL_CALLS] [{"name": "f", "arguments": {...}}]: Mistral Nemo and others of its time
  kMistralArgs,  // [TOOL_CALLS]f[ARGS]{...}, perhaps with [CALL_ID] and an id between: Mistral Small 3.2, Devstral, Ministral 3
  kXml,  // <tool_call><function=f><parameter=x>...</parameter></function></tool_call>: Qwen3-Coder
};

inline constexpr std::array kToolFormats = {ToolFormat::kHermes, ToolFormat::kLlama, ToolFormat::kMistral,
                                            ToolFormat::kMistralArgs, ToolFormat::kXml};

// Of kMistralArgs.
inline constexpr std::string_view kBeforeArguments = "[ARGS]", kBeforeCallId = "[CALL_ID]";

// Nothing if the template shows none of these.
std::optional<ToolFormat> tool_format_of(std::string_view template_text);

std::string_view name(ToolFormat format);
std::optional<ToolFormat> tool_format_named(std::string_view name);

// Stands before a call; Llama's may be left out at the beginning of an answer.
std::string_view opening(ToolFormat format);
std::string_view closing(ToolFormat format);  // stands behind a call; empty: nothing
std::string_view arguments_key(ToolFormat format);
// Texts of the format that can be control tokens of a vocabulary: an answer with tools shows them.
std::span<const std::string_view> markers(ToolFormat format);

}  // namespace runahead
