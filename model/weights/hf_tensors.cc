#include "model/weights/hf_tensors.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <unordered_set>

#include "base/limits.h"

namespace runahead {
namespace {

struct Part {
  std::string_view theirs, gguf;
};
constexpr Part kOuter[] = {{"model.embed_tokens", "token_embd"},
                           {"model.norm", "output_norm"},
                           {"transformer.word_embeddings", "token_embd"},
                           {"transformer.ln_f", "output_norm"},
                           {"lm_head", "output"}};
constexpr Part kLayer[] = {{"self_attn.q_proj", "attn_q"},
                           {"self_attn.k_proj", "attn_k"},
                           {"self_attn.v_proj", "attn_v"},
                           {"self_attn.qkv_proj", "attn_qkv"},
                           {"self_attn.o_proj", "attn_output"},
                           {"self_attn.q_norm", "attn_q_norm"},
                           {"self_attn.k_norm", "attn_k_norm"},
                           {"self_attn.q_layernorm", "attn_q_norm"},
                           {"self_attn.k_layernorm", "attn_k_norm"},
                           {"mlp.gate_proj", "ffn_gate"},
                           {"mlp.up_proj", "ffn_up"},
                           {"mlp.gate_up_proj", "ffn_up"},
                           {"mlp.down_proj", "ffn_down"},
                           {"mlp.gate", "ffn_gate_inp"},
                           {"block_sparse_moe.gate", "ffn_gate_inp"},
                           {"mlp.c_fc", "ffn_up"},
                           {"mlp.c_proj", "ffn_down"},
                           {"input_layernorm", "attn_norm"},
                           {"pre_feedforward_layernorm", "ffn_norm"},
                           {"post_feedforward_layernorm", "post_ffw_norm"},
                           {"self_attention.query_key_value", "attn_qkv"},
                           {"self_attention.dense", "attn_output"},
                           {"mlp.dense_h_to_4h", "ffn_up"},
                           {"mlp.dense_4h_to_h", "ffn_down"},
                           {"ln_mlp", "attn_norm"},  // as Falcon 40B is converted: the first is the FFN's
                           {"ln_attn", "attn_norm_2"}};
// Of one expert: its number comes behind GGUF's name, as in files of before April 2024, so that nothing is copied.
constexpr Part kExpert[] = {{"gate_proj", "ffn_gate"}, {"up_proj", "ffn_up"}, {"down_proj", "ffn_down"},
                            {"w1", "ffn_gate"},        {"w3", "ffn_up"},      {"w2", "ffn_down"}};
constexpr std::string_view kScale = ".weight_scale";  // of F8_E4M3 (decoded_matrix.h)
// The norm behind the attention has the same name as the one before the FFN.
constexpr std::string_view kPostAttention = "post_attention_layernorm";

std::string_view find(std::span<const Part> parts, std::string_view theirs) {
  const auto found = std::ranges::find(parts, theirs, &Part::theirs);
  return found == parts.end() ? std::string_view() : found->gguf;
}

// "model.layers.3.mlp.up_proj.weight" taken apart.
struct Name {
  std::optional<uint64_t> layer;
  std::string_view part, ending;  // "mlp.up_proj", ".weight"
  std::optional<uint64_t> head;  // of "self_attn.q_layernorm.norms.7"
  std::optional<uint64_t> expert;  // of "mlp.experts.5.up_proj", whose part is "up_proj"
};

// A number at the start, and what is behind it.
std::optional<uint64_t> take_number(std::string_view& text) {
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()));
  return number;
}

Name take_apart(std::string_view name) {
  Name out;
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return out;
  out.part = name.substr(0, dot), out.ending = name.substr(dot);
  for (const std::string_view prefix : {"model.layers.", "transformer.h."}) {
    if (!out.part.starts_with(prefix)) continue;
    std::string_view rest = out.part.substr(prefix.size());
    out.layer = take_number(rest);
    if (!out.layer || !rest.starts_with('.')) return {};
    out.part = rest.substr(1);
  }
  for (const std::string_view prefix : {"mlp.experts.", "block_sparse_moe.experts."}) {
    if (!out.layer || !out.part.starts_with(prefix)) continue;
    std::string_view rest = out.part.substr(prefix.size());
    out.expert = take_number(rest);
    if (!out.expert || !rest.starts_with('.')) return {};
    out.part = rest.substr(1);
  }
  constexpr std::string_view kNorms = ".norms.";
  if (const size_t norms = out.part.find(kNorms); norms != std::string_view::npos) {
    std::string_view rest = out.part.substr(norms + kNorms.size());
    out.head = take_number(rest);
    if (!out.head || !rest.empty()) return {};
    out.part = out.part.substr(0, norms);
  }
  return out;
}

class Conversion {
 public:
  Conversion(const HfModel& model, const std::string& name, GgufMemory& memory)
      : model_(model), name_(name), memory_(memory) {}

  Result<std::vector<TensorInfo>> run(const std::vector<SafeTensor>& tensors) {
    for (const SafeTensor& tensor : tensors) {
      if (!is_left_out(tensor.name)) TRY(add(tensor));
    }
    for (const auto& [name, heads] : heads_) TRY(add_heads(name, heads));
    for (const auto& [name, values] : model_.vectors)
      add_floats(name, 1, {static_cast<int64_t>(values.size()), 1}, values);
    std::unordered_set<std::string_view> names;
    for (const TensorInfo& info : out_)
      if (!names.insert(info.name).second) return bad("two tensors are " + runahead::quoted(info.name));
    return std::move(out_);
  }

 private:
  std::unexpected<Error> bad(const std::string& what) const {
    return fail(ErrorCode::kInvalidModel, name_ + ": " + what + "; download the model again");
  }

  // A table that older writers kept, a head that is the embedding again, and scales of activations, which are not quantized here.
  bool is_left_out(std::string_view name) const {
    return name.ends_with(".rotary_emb.inv_freq") || (model_.tied && name == "lm_head.weight") ||
           (model_.float8 && name.ends_with(".input_scale"));
  }

  std::string gguf_name(Name name) const {
    if (model_.float8 && name.layer && name.ending == ".weight_scale_inv")
      name.ending = kScale;  // multiplied all the same
    const bool scale = model_.float8 && name.layer && name.ending == kScale;
    if (name.ending != ".weight" && name.ending != ".bias" && !scale) return "";
    if (!name.layer) {
      const std::string_view part = find(kOuter, name.part);
      return part.empty() ? "" : std::string(part) + std::string(name.ending);
    }
    const std::string block = "blk." + std::to_string(*name.layer) + ".";
    if (name.expert) {
      const std::string_view part = find(kExpert, name.part);
      if (part.empty() || name.ending == ".bias") return "";
      return block + std::string(part) + "." + std::to_string(*name.expert) + std::string(name.ending);
    }
    std::string_view part = find(kLayer, name.part);
    const std::string_view architecture = model_.family->architecture;
    const bool behind = architecture == "gemma2" || architecture == "gemma3" || architecture == "olmo2";
    if (name.part == kPostAttention) part = behind ? "post_attention_norm" : "ffn_norm";
    if (part.empty()) return "";
    return block + std::string(part) + std::string(name.ending);
  }

  Result<QuantType> type_of(const SafeTensor& tensor) const {
    for (const QuantType type : {QuantType::kBF16, QuantType::kF16, QuantType::kF32})
      if (quant_format(type).name == tensor.type) return type;
    if (model_.float8 && tensor.type == quant_format(QuantType::kF8_E4M3).name) return QuantType::kF8_E4M3;
    return fail(ErrorCode::kUnsupported,
                name_ + ": the tensor " + runahead::quoted(tensor.name) + " has the type " + tensor.type +
                    ", and this version reads BF16, F16 and F32; choose another folder, or a GGUF file");
  }

  Result<void> add(const SafeTensor& tensor) {
    const Name parts = take_apart(tensor.name);
    const std::string name = gguf_name(parts);
    TensorInfo info;
    info.type = TRY(type_of(tensor));
    if (name.empty())
      return fail(ErrorCode::kUnsupported, name_ + ": this version does not use the tensor " +
                                               runahead::quoted(tensor.name) +
                                               "; answers would be wrong, so choose another model");
    if (info.type == QuantType::kF8_E4M3 && !may_be_float8(tensor, parts, name))
      return fail(ErrorCode::kUnsupported, name_ + ": the tensor " + runahead::quoted(tensor.name) +
                                               " has the type F8_E4M3, which is read of products of layers alone; "
                                               "choose another folder, or a GGUF file");
    if (parts.head) {
      heads_[name][*parts.head] = &tensor;
      return {};
    }
    info.num_dims = std::max(tensor.num_dims, 1);
    for (int32_t i = 0; i < tensor.num_dims; ++i)
      info.dims[static_cast<size_t>(i)] = tensor.shape[static_cast<size_t>(tensor.num_dims - 1 - i)];
    if (name.ends_with(kScale)) info.num_dims = 2;  // one, or one a row: a column
    if (name.ends_with(kScale) && tensor.num_dims == 1) info.dims = {1, tensor.shape[0], 1, 1};
    if (model_.family->adds_one_to_gains && name.ends_with("norm.weight")) return add_gains(name, info, tensor);
    info.bytes = tensor.bytes;
    if (model_.grouped_qkv && name.find(".attn_qkv.") != std::string::npos) {
      info.bytes = TRY(ungrouped(tensor));
    } else if (reinterpret_cast<uintptr_t>(info.bytes.data()) %
                   static_cast<size_t>(quant_format(info.type).block_bytes) !=
               0) {
      info.bytes = memory_.bytes.emplace_back(info.bytes.begin(), info.bytes.end());  // old writers did not align
    }
    info.name = memory_.names.emplace_back(name);
    out_.push_back(info);
    return {};
  }

  bool may_be_float8(const SafeTensor& tensor, const Name& parts, std::string_view name) const {
    return tensor.num_dims == 2 && parts.layer && !parts.head && name.ends_with(".weight") && !name.contains("norm") &&
           !(model_.grouped_qkv && name.contains(".attn_qkv."));
  }

  std::vector<float> floats_of(const SafeTensor& tensor, QuantType type) const {
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    const std::vector<std::byte> aligned(tensor.bytes.begin(), tensor.bytes.end());
    dequantize(type, aligned, values);
    return values;
  }

  void add_floats(const std::string& name, int32_t num_dims, std::array<int64_t, 2> dims,
                  const std::vector<float>& values) {
    std::vector<std::byte>& bytes = memory_.bytes.emplace_back(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    TensorInfo info{.name = memory_.names.emplace_back(name), .type = QuantType::kF32, .num_dims = num_dims};
    info.dims[0] = dims[0], info.dims[1] = dims[1];
    info.bytes = bytes;
    out_.push_back(info);
  }

  Result<void> add_gains(const std::string& name, const TensorInfo& info, const SafeTensor& tensor) {
    if (tensor.num_dims != 1 || tensor.elements() > static_cast<int64_t>(limits::kModelDimMax))
      return bad("the tensor " + runahead::quoted(tensor.name) + " is no vector of a model's size");
    std::vector<float> values = floats_of(tensor, info.type);
    for (float& value : values) value += 1;
    add_floats(name, 1, {info.dims[0], 1}, values);
    return {};
  }

  // Rows of each K/V head's queries, key and value -> all queries, all keys, all values.
  Result<std::span<const std::byte>> ungrouped(const SafeTensor& tensor) {
    const uint64_t group = model_.num_heads / model_.num_kv_heads, heads = group + 2, dim = model_.head_dim;
    const uint64_t rows = model_.num_kv_heads * heads * dim;
    if (tensor.num_dims < 1 || tensor.num_dims > 2 || static_cast<uint64_t>(tensor.shape[0]) != rows)
      return bad("the tensor " + runahead::quoted(tensor.name) + " has not the " + std::to_string(rows) +
                 " rows of its heads");
    const size_t head_bytes = tensor.bytes.size() / rows * dim;
    std::vector<std::byte>& out = memory_.bytes.emplace_back();
    out.reserve(tensor.bytes.size());
    const auto append = [&](uint64_t begin, uint64_t count) {
      for (uint64_t kv = 0; kv < model_.num_kv_heads; ++kv) {
        const auto from = tensor.bytes.subspan((kv * heads + begin) * head_bytes, count * head_bytes);
        out.insert(out.end(), from.begin(), from.end());
      }
    };
    append(0, group), append(group, 1), append(group + 1, 1);
    return std::span<const std::byte>(out);
  }

  Result<void> add_heads(const std::string& name, const std::map<uint64_t, const SafeTensor*>& heads) {
    std::vector<float> all;
    for (const auto& [head, tensor] : heads) {
      if (static_cast<uint64_t>(tensor->elements()) != model_.head_dim)
        return bad("the tensor " + runahead::quoted(tensor->name) + " is no vector of a head's size");
      const std::vector<float> one = floats_of(*tensor, TRY(type_of(*tensor)));
      all.insert(all.end(), one.begin(), one.end());
    }
    const uint64_t count = heads.size();
    if (heads.rbegin()->first + 1 != count)
      return bad("the norms of some heads are missing from " + runahead::quoted(name));
    add_floats(name, 2, {static_cast<int64_t>(model_.head_dim), static_cast<int64_t>(count)}, all);
    return {};
  }

  const HfModel& model_;
  const std::string& name_;
  GgufMemory& memory_;
  std::vector<TensorInfo> out_;
  std::map<std::string, std::map<uint64_t, const SafeTensor*>> heads_;
};

}  // namespace

Result<std::vector<TensorInfo>> hf_tensors(const HfModel& model, const std::vector<SafeTensor>& tensors,
                                           const std::string& name, GgufMemory& memory) {
  return Conversion(model, name, memory).run(tensors);
}

}  // namespace runahead
