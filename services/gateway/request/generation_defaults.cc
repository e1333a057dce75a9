#include "services/gateway/request/generation_defaults.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <utility>

#include "base/json_text.h"
#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::string_view_literals;

constexpr const char* kFileName = "generation_config.json";

std::optional<float> as_float(std::optional<double> value) {
  return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
}

std::unexpected<Error> with_source(ErrorCode code, const std::string& source, const Error& error) {
  return fail(code, source + ": " + error.message, error.param);
}

// Keys as transformers and vLLM name them. generation_config.json has many more that change no choice of tokens.
Result<GenerationDefaults> from_json(const std::string& text, bool every_key_is_known) {
  const ParsedJson parsed = TRY(parse_json_object(text));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  GenerationDefaults defaults = take_sampling_choice(reader);
  if (const auto tokens = reader.integer("max_new_tokens", 0, std::numeric_limits<int32_t>::max()))
    defaults.max_tokens = static_cast<int32_t>(*tokens);
  if (const auto samples = reader.boolean("do_sample"); samples && !*samples) defaults.temperature = 0.0f;  // greedy
  if (every_key_is_known) reader.finish();
  if (error) return std::unexpected(std::move(*error));
  return defaults;
}

Result<GenerationDefaults> from_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return GenerationDefaults{};
  std::string text(limits::kGenerationConfigBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const auto defaults = text.size() > limits::kGenerationConfigBytesMax
                            ? fail(ErrorCode::kInvalidConfig, "the file is larger than 1 MiB")
                            : from_json(text, false);
  if (!defaults) return with_source(ErrorCode::kInvalidConfig, path.string(), defaults.error());
  log::info("sampling defaults from {}", path.string());
  return *defaults;
}

// The keys that llama.cpp's converter copies out of generation_config.json, read as if they still stood there.
Result<GenerationDefaults> from_gguf(const Gguf& model) {
  constexpr std::pair<std::string_view, const char*> kFloats[] = {
      {"general.sampling.temp", "temperature"},
      {"general.sampling.top_p", "top_p"},
      {"general.sampling.min_p", "min_p"},
      {"general.sampling.penalty_repeat", "repetition_penalty"}};
  constexpr std::string_view kTopK = "general.sampling.top_k";
  constexpr std::array kNotBuilt = {"general.sampling.sequence"sv, "general.sampling.xtc_probability"sv,
                                    "general.sampling.mirostat"sv, "general.sampling.penalty_last_n"sv};
  json object = json::object();
  for (const auto& [key, field] : kFloats)
    if (model.has(key)) object[field] = TRY(model.number(key));
  if (model.has(kTopK)) object["top_k"] = TRY(model.number(kTopK));
  for (const std::string_view key : kNotBuilt)
    if (model.has(key)) log::warn("the model's {} is not used: this server has no such sampler", key);
  const auto defaults = from_json(to_text(object), true);
  if (!defaults) return with_source(ErrorCode::kInvalidModel, "the model's general.sampling keys", defaults.error());
  return defaults;
}

}  // namespace

void GenerationDefaults::fall_back_to(const GenerationDefaults& other) {
  const auto fill = [](auto& value, const auto& fallback) {
    if (!value) value = fallback;
  };
  fill(temperature, other.temperature);
  fill(top_k, other.top_k);
  fill(top_p, other.top_p);
  fill(min_p, other.min_p);
  fill(repetition_penalty, other.repetition_penalty);
  fill(max_tokens, other.max_tokens);
}

GenerationDefaults take_sampling_choice(JsonReader& reader) {
  constexpr double kSmall = 1e-6;  // open lower bounds
  GenerationDefaults chosen{.temperature = as_float(reader.number("temperature", 0, 2)),
                            .top_p = as_float(reader.number("top_p", kSmall, 1)),
                            .min_p = as_float(reader.number("min_p", 0, 1)),
                            .repetition_penalty = as_float(reader.number("repetition_penalty", kSmall, 2))};
  if (const auto top_k = reader.integer("top_k", -1, std::numeric_limits<int32_t>::max()))
    chosen.top_k = std::max(static_cast<int32_t>(*top_k), 0);
  return chosen;
}

GenerationDefaults untold_sampling() { return {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}; }

Result<GenerationDefaults> load_generation_defaults(const GenerationFlags& flags,
                                                    const std::filesystem::path& model_path, const Gguf& model) {
  GenerationDefaults defaults{.max_tokens = flags.max_tokens};
  if (flags.defaults == "none") return defaults;
  if (!flags.defaults.empty()) {
    const auto said = from_json(flags.defaults, true);
    if (!said) return with_source(ErrorCode::kInvalidArgument, "--generation-defaults", said.error());
    defaults.fall_back_to(*said);
  }
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(model_path, ignored);
  defaults.fall_back_to(TRY(from_file((is_folder ? model_path : model_path.parent_path()) / kFileName)));
  defaults.fall_back_to(TRY(from_gguf(model)));
  return defaults;
}

}  // namespace runahead
