// What a step of tokenizer.json says, whatever its type. Steps of other types have other members: absent and another type are
// alike. Private to model/weights/hf_*.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"
#include "model/weights/gguf.h"

namespace runahead {

inline constexpr std::string_view kHfSpace = "\xE2\x96\x81";  // U+2581

inline std::string_view text_of(const nlohmann::json& step, const char* name) {
  const auto found = step.is_object() ? step.find(name) : step.end();
  return step.is_object() && found != step.end() && found->is_string()
             ? std::string_view(found->get_ref<const std::string&>())
             : std::string_view();
}

inline bool flag_of(const nlohmann::json& step, const char* name, bool fallback) {
  const auto found = step.is_object() ? step.find(name) : step.end();
  return step.is_object() && found != step.end() && found->is_boolean() ? found->get<bool>() : fallback;
}

// {"String": ..} or {"Regex": ..} of "pattern".
inline std::string_view pattern_of(const nlohmann::json& step, const char* kind) {
  const auto found = step.is_object() ? step.find("pattern") : step.end();
  return step.is_object() && found != step.end() ? text_of(*found, kind) : std::string_view();
}

// Null where there is none.
inline const nlohmann::json& member_of(const nlohmann::json& object, const char* name) {
  static const nlohmann::json kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

// A part of the tokenizer that is of a type, or set in a way, that is not built. tokenizer: "a Unigram tokenizer".
inline std::unexpected<Error> unsupported_step(const std::string& file, const std::string& tokenizer,
                                               const std::string& part, const nlohmann::json& step) {
  const std::string_view type = text_of(step, "type");
  return fail(ErrorCode::kUnsupported,
              file + ": " + tokenizer + " whose " + part + " is " + (type.empty() ? "none" : quoted(type)) +
                  ", or is set so, is not supported; choose another model, or its GGUF file",
              part);
}

// The steps of a Sequence, or the one step; none of null.
inline std::vector<const nlohmann::json*> steps_of(const nlohmann::json& step, const char* list) {
  std::vector<const nlohmann::json*> steps;
  if (step.is_null()) return steps;
  const auto found = step.is_object() ? step.find(list) : step.end();
  if (text_of(step, "type") != "Sequence" || found == step.end() || !found->is_array()) return {&step};
  for (const nlohmann::json& one : *found) steps.push_back(&one);
  return steps;
}

}  // namespace runahead
