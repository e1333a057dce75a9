#include "model/weights/hf_rope.h"

#include <cmath>
#include <numbers>

#include "base/limits.h"

namespace runahead {
namespace {

using nlohmann::json;

struct Rope {
  const HfObject& config;
  const HfObject& scaling;  // an empty one if nothing is scaled
  double theta = 0;
  uint64_t rotated = 0;  // dimensions
  uint64_t context = 0, original_context = 0;  // tokens
  std::string prefix;  // of keys
};

Result<double> positive(const HfObject& object, std::string_view name) {
  const double value = TRY(object.number(name));
  if (!(value > 0)) return object.bad(name, object.shown(name) + ", not a positive number");
  return value;
}

// What divides the frequency of each pair, as transformers computes it in floats.
Result<std::vector<float>> llama3_divisors(const Rope& r) {
  const double factor = TRY(positive(r.scaling, "factor")), low = TRY(positive(r.scaling, "low_freq_factor")),
               high = TRY(positive(r.scaling, "high_freq_factor"));
  if (!(high > low)) return r.scaling.bad("high_freq_factor", "not over low_freq_factor");
  const auto original = static_cast<double>(r.original_context);
  std::vector<float> divisors;
  for (uint64_t i = 0; i < r.rotated / 2; ++i) {
    const double turn = std::pow(r.theta, 2.0 * static_cast<double>(i) / static_cast<double>(r.rotated));
    const double length = 2 * std::numbers::pi * turn;  // tokens
    const double smooth = (original / length - low) / (high - low);
    const double kept = length < original / high  ? 1
                        : length > original / low ? 1 / factor
                                                  : (1 - smooth) / factor + smooth;
    divisors.push_back(static_cast<float>(1 / kept));
  }
  return divisors;
}

Result<void> read_yarn(const Rope& r, GgufKeys& keys) {
  const double own = static_cast<double>(r.context) / static_cast<double>(r.original_context);
  const double factor = r.scaling.has("factor") ? TRY(positive(r.scaling, "factor")) : own;
  const auto magnitude = [&](double scale) { return factor > 1 ? 1 + 0.1 * scale * std::log(factor) : 1; };
  if (!TRY(r.scaling.flag_or("truncate", true))) return r.scaling.unsupported("truncate");
  double attention = magnitude(1);
  const double mscale = TRY(r.scaling.number_or("mscale", 0)), all = TRY(r.scaling.number_or("mscale_all_dim", 0));
  if (mscale != 0 && all != 0) attention = magnitude(mscale) / magnitude(all);
  if (r.scaling.has("attention_factor")) attention = TRY(positive(r.scaling, "attention_factor"));
  const double fast = TRY(r.scaling.number_or("beta_fast", 32)), slow = TRY(r.scaling.number_or("beta_slow", 1));
  keys.str(r.prefix + "type", "yarn");
  keys.f32(r.prefix + "factor", factor);
  keys.u32(r.prefix + "original_context_length", r.original_context);
  keys.f32(r.prefix + "attn_factor", attention / magnitude(1));  // GGUF's readers multiply by YaRN's own
  keys.f32(r.prefix + "yarn_beta_fast", fast == 0 ? 32 : fast);
  keys.f32(r.prefix + "yarn_beta_slow", slow == 0 ? 1 : slow);
  return {};
}

Result<void> read_longrope(const Rope& r, HfModel& model, GgufKeys& keys) {
  for (const auto& [from, to] :
       {std::pair("long_factor", "rope_factors_long.weight"), {"short_factor", "rope_factors_short.weight"}}) {
    const std::vector<double> divisors = TRY(r.scaling.numbers(from));
    if (divisors.size() != r.rotated / 2)
      return r.scaling.bad(from, "a list of " + std::to_string(divisors.size()) + " numbers for " +
                                     std::to_string(r.rotated / 2) + " pairs");
    model.vectors.emplace_back(to, std::vector<float>(divisors.begin(), divisors.end()));
  }
  const auto original = static_cast<double>(r.original_context);
  double factor = static_cast<double>(r.context) / original;
  if (r.scaling.has("factor")) factor = TRY(positive(r.scaling, "factor"));
  double attention = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  if (r.scaling.has("attention_factor")) attention = TRY(positive(r.scaling, "attention_factor"));
  keys.str(r.prefix + "type", "longrope");
  keys.u32(r.prefix + "original_context_length", r.original_context);
  keys.f32(r.prefix + "attn_factor", attention);
  return {};
}

Result<void> read_scaling(const Rope& r, HfModel& model, GgufKeys& keys) {
  std::string type = TRY(r.scaling.text_or("rope_type", TRY(r.scaling.text_or("type", "default"))));
  static_cast<void>(r.scaling.has("type"));
  if (model.family->architecture == "phi3" && type == "yarn") type = "longrope";  // its name before there was one
  if (type == "linear") {
    keys.str(r.prefix + "type", "linear");
    keys.f32(r.prefix + "factor", TRY(positive(r.scaling, "factor")));
  } else if (type == "llama3") {
    model.vectors.emplace_back("rope_freqs.weight", TRY(llama3_divisors(r)));
  } else if (type == "yarn") {
    TRY(read_yarn(r, keys));
  } else if (type == "longrope" || type == "su") {
    TRY(read_longrope(r, model, keys));
  } else if (type == "dynamic") {  // begins where the context ends
    static_cast<void>(r.scaling.has("factor"));
  } else if (type != "default") {
    return r.scaling.unsupported(r.scaling.has("rope_type") ? "rope_type" : "type");
  }
  static_cast<void>(r.scaling.has("finetuned"));
  for (const std::string& name : r.scaling.unread()) return r.scaling.unsupported(name);
  return {};
}

// The bases of layers with a window, of families that have them.
Result<void> read_window_base(const HfObject& config, const HfObject& windowed, double theta, const HfModel& model,
                              GgufKeys& keys) {
  const bool gemma = model.family->architecture == "gemma3";
  if (TRY(windowed.text_or("rope_type", "default")) != "default") return windowed.unsupported("rope_type");
  const double fallback = gemma ? TRY(config.number_or("rope_local_base_freq", 10000)) : theta;
  const double base = TRY(windowed.number_or("rope_theta", fallback));
  if (gemma) keys.f32(std::string(model.family->architecture) + ".rope.freq_base_swa", base);
  else if (base != theta) return windowed.unsupported("rope_theta");
  for (const std::string& name : windowed.unread()) return windowed.unsupported(name);
  return {};
}

}  // namespace

Result<void> read_hf_rope(const HfObject& config, uint64_t context, HfModel& model, GgufKeys& keys) {
  const json none = json::object();
  const json* parameters = config.find("rope_parameters");
  const json* old = config.find("rope_scaling");
  if (parameters != nullptr && old != nullptr) return config.bad("rope_scaling", "there beside rope_parameters");
  const json* both = parameters != nullptr ? parameters : old != nullptr ? old : &none;
  const std::string path = parameters != nullptr ? "rope_parameters." : "rope_scaling.";
  if (!both->is_object()) return config.bad(path.substr(0, path.size() - 1), "no object");
  const bool apart = both->contains("full_attention") || both->contains("sliding_attention");
  const auto part = [&](const char* name) -> const json& {
    const auto found = both->find(name);
    return apart && found != both->end() && found->is_object() ? *found : none;
  };
  const HfObject scaling(apart ? part("full_attention") : *both, config.where(), path);
  const HfObject windowed(part("sliding_attention"), config.where(), path + "sliding_attention.");
  const HfFamily& family = *model.family;
  const std::string architecture(family.architecture);
  Rope r{config, scaling, 0, 0, context, context, architecture + ".rope.scaling."};
  r.theta = TRY(scaling.number_or("rope_theta", TRY(config.number_or("rope_theta", family.rope_theta))));
  if (!(r.theta > 1)) return config.bad("rope_theta", "not over 1");
  const double part_rotated =
      TRY(scaling.number_or("partial_rotary_factor", TRY(config.number_or("partial_rotary_factor", family.rotated))));
  r.rotated = static_cast<uint64_t>(static_cast<double>(model.head_dim) * std::clamp(part_rotated, 0.0, 1.0));
  if (r.rotated < 2 || r.rotated % 2 != 0) return config.unsupported("partial_rotary_factor");
  constexpr const char* kOriginal = "original_max_position_embeddings";
  r.original_context = TRY(config.size_or(kOriginal, limits::kModelContextMax, context));
  r.original_context = TRY(scaling.size_or(kOriginal, limits::kModelContextMax, r.original_context));
  keys.f32(architecture + ".rope.freq_base", r.theta);
  keys.u32(architecture + ".rope.dimension_count", r.rotated);
  if (architecture == "gemma3" || architecture == "olmo2")
    TRY(read_window_base(config, windowed, r.theta, model, keys));
  return read_scaling(r, model, keys);
}

}  // namespace runahead
