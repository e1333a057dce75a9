#include "model/weights/hf_quantization.h"

#include <algorithm>

#include "base/limits.h"
#include "model/weights/gguf.h"

namespace runahead {
namespace {

using nlohmann::json;

bool is_off(const json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) || (value.is_structured() && value.empty());
}

Result<void> refuse_others(const HfObject& c, std::span<const std::string_view> harmless) {
  for (const std::string& name : c.unread())
    if (std::ranges::find(harmless, name) == harmless.end()) return c.unsupported(name);
  return {};
}

// Rows and columns that have a scale together; none: a scale of each row, or of all.
Result<void> add_block(const HfObject& c, const char* name, GgufKeys& keys) {
  if (!c.has(name)) return {};
  const std::vector<double> sizes = TRY(c.numbers(name));
  const bool fit = sizes.size() == 2 && std::ranges::all_of(sizes, [](double size) {
                     return size >= 1 && size <= limits::kModelDimMax && size == static_cast<int32_t>(size);
                   });
  if (!fit) return c.bad(name, "not two sizes");
  keys.i32s("runahead.float8.block", {static_cast<int32_t>(sizes[0]), static_cast<int32_t>(sizes[1])});
  return {};
}

Result<void> read_fp8(const HfObject& c, GgufKeys& keys) {
  const std::string format = TRY(c.text_or("fmt", "e4m3"));
  if (format != "e4m3" && format != "float8_e4m3fn") return c.unsupported("fmt");
  TRY(add_block(c, "weight_block_size", keys));
  // Which modules are meant is seen in their tensors.
  constexpr std::string_view kHarmless[] = {"quant_method",   "activation_scheme",      "dequantize",
                                            "ignored_layers", "modules_to_not_convert", "scale_fmt"};
  return refuse_others(c, kHarmless);
}

// Of one of config_groups: how its weights are written.
Result<void> read_group(const HfObject& group, const json& value, const std::string& path, GgufKeys& keys) {
  if (const std::string format = TRY(group.text_or("format", "float-quantized")); format != "float-quantized")
    return group.unsupported("format");
  if (const json* output = group.find("output_activations"); output != nullptr && !is_off(*output))
    return group.unsupported("output_activations");
  const auto weights = value.find("weights");
  if (weights == value.end() || !weights->is_object()) return group.bad("weights", "no object");
  static_cast<void>(group.has("weights"));
  const HfObject w(*weights, group.where(), path + ".weights.");
  if (TRY(w.number_or("num_bits", 0)) != 8) return w.unsupported("num_bits");
  if (TRY(w.text_or("type", "")) != "float") return w.unsupported("type");
  if (!TRY(w.flag_or("symmetric", true))) return w.unsupported("symmetric");
  if (TRY(w.flag_or("dynamic", false))) return w.unsupported("dynamic");
  const std::string strategy = TRY(w.text_or("strategy", "tensor"));
  if (strategy != "tensor" && strategy != "channel" && strategy != "block") return w.unsupported("strategy");
  if (strategy == "block") {
    if (!w.has("block_structure")) return w.bad("block_structure", "missing");
    TRY(add_block(w, "block_structure", keys));
  }
  constexpr std::string_view kOfWeights[] = {"observer", "observer_kwargs", "scale_dtype", "zp_dtype",
                                             "block_structure"};
  TRY(refuse_others(w, kOfWeights));
  constexpr std::string_view kOfGroup[] = {"targets", "input_activations"};
  return refuse_others(group, kOfGroup);
}

Result<void> read_compressed(const HfObject& c, const json& value, GgufKeys& keys) {
  const auto groups = value.find("config_groups");
  static_cast<void>(c.has("config_groups"));
  if (groups == value.end() || !groups->is_object() || groups->size() != 1)
    return c.bad("config_groups", "no object of one group");  // two could have blocks of two sizes
  const std::string path = "quantization_config.config_groups." + groups->begin().key();
  if (!groups->begin()->is_object()) return c.bad("config_groups", "no object of objects");
  TRY(read_group(HfObject(*groups->begin(), c.where(), path + "."), *groups->begin(), path, keys));
  for (const char* name : {"kv_cache_scheme", "sparsity_config", "transform_config"}) {
    const json* part = c.find(name);
    if (part == nullptr || is_off(*part)) continue;
    const bool dense =
        std::string_view(name) == "sparsity_config" && part->is_object() && part->value("format", json()) == "dense";
    if (!dense) return c.unsupported(name);
  }
  constexpr std::string_view kHarmless[] = {"quant_method",        "format",  "ignore",
                                            "quantization_status", "version", "global_compression_ratio"};
  return refuse_others(c, kHarmless);
}

}  // namespace

Result<void> read_hf_quantization(const HfObject& config, HfModel& model, GgufKeys& keys) {
  for (const char* name : {"quantization_config", "compression_config"}) {
    const json* value = config.find(name);
    if (value == nullptr || is_off(*value)) continue;
    const auto text = [&](const char* member) {
      const bool there = value->is_object() && value->contains(member) && (*value)[member].is_string();
      return there ? (*value)[member].get<std::string>() : std::string();
    };
    const std::string method = text("quant_method"), format = text("format");
    const bool fp8 = method == "fp8", compressed = method == "compressed-tensors" && format == "float-quantized";
    if ((!fp8 && !compressed) || model.float8)
      return fail(ErrorCode::kUnsupported,
                  config.where() + ": the weights are quantized by the layout " +
                      (method.empty() ? "of an unknown name" : runahead::quoted(method)) +
                      (format.empty() ? "" : ", " + runahead::quoted(format)) + " (" + name +
                      "), which is not read; choose the folder in BF16, F16, F32 or FP8, or a GGUF file",
                  name);
    model.float8 = true;
    const HfObject c(*value, config.where(), std::string(name) + ".");
    TRY(fp8 ? read_fp8(c, keys) : read_compressed(c, *value, keys));
  }
  return {};
}

}  // namespace runahead
