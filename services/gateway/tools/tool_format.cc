#include "services/gateway/tools/tool_format.h"

#include <algorithm>

namespace runahead {
namespace {

using namespace std::string_view_literals;

struct Form {
  std::string_view name, opening, closing, arguments_key;
  std::array<std::string_view, 3> markers;  // as many as are not empty
};

constexpr std::array<Form, kToolFormats.size()> kForms = {{
    {"hermes", "<tool_call>", "</tool_call>", "arguments", {"<tool_call>", "</tool_call>"}},
    {"llama", "<|python_tag|>", "", "parameters", {"<|python_tag|>"}},
    {"mistral", "[TOOL_CALLS]", "", "arguments", {"[TOOL_CALLS]"}},
    {"mistral-args", "[TOOL_CALLS]", "", "", {"[TOOL_CALLS]", kBeforeArguments, kBeforeCallId}},
    {"xml", "<tool_call>", "</tool_call>", "", {"<tool_call>", "</tool_call>"}},
}};

const Form& form(ToolFormat format) { return kForms[static_cast<size_t>(format)]; }

}  // namespace

std::optional<ToolFormat> tool_format_of(std::string_view template_text) {
  const auto has = [template_text](std::string_view part) {
    return template_text.find(part) != std::string_view::npos;
  };
  if (has("<function=") && has("<parameter=")) return ToolFormat::kXml;
  if (has("<tool_call>")) return ToolFormat::kHermes;
  if (has("[TOOL_CALLS]")) return has(kBeforeArguments) ? ToolFormat::kMistralArgs : ToolFormat::kMistral;
  if (has("<|start_header_id|>") && has("\"parameters\"")) return ToolFormat::kLlama;
  return {};
}

std::string_view name(ToolFormat format) { return form(format).name; }

std::optional<ToolFormat> tool_format_named(std::string_view name) {
  for (const ToolFormat format : kToolFormats)
    if (form(format).name == name) return format;
  return {};
}

std::string_view opening(ToolFormat format) { return form(format).opening; }
std::string_view closing(ToolFormat format) { return form(format).closing; }
std::string_view arguments_key(ToolFormat format) { return form(format).arguments_key; }

std::span<const std::string_view> markers(ToolFormat format) {
  const auto& all = form(format).markers;
  return std::span(all).first(static_cast<size_t>(std::ranges::find(all, std::string_view()) - all.begin()));
}

}  // namespace runahead
