#include "model/weights/hf_config.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/limits.h"
#include "model/weights/gguf.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_quantization.h"
#include "model/weights/hf_rope.h"

namespace runahead {
namespace {

// Each is held against transformers itself (tests/golden/make_hf_models.py). docs/EXTENDING.md: what one needs.
constexpr HfFamily kFamilies[] = {
    {.model_type = "llama", .architecture = "llama", .halves = true},
    {.model_type = "mistral", .architecture = "llama", .halves = true},
    {.model_type = "mixtral",
     .architecture = "llama",
     .rope_theta = 1e6,
     .halves = true,
     .expert_ffn = "intermediate_size"},
    {.model_type = "falcon", .architecture = "falcon", .tied = true},
    {.model_type = "gemma", .architecture = "gemma", .tied = true, .adds_one_to_gains = true},
    {.model_type = "gemma2", .architecture = "gemma2", .tied = true, .adds_one_to_gains = true},
    {.model_type = "gemma3_text", .architecture = "gemma3", .tied = true, .rope_theta = 1e6, .adds_one_to_gains = true},
    {.model_type = "granite", .architecture = "granite", .halves = true},
    {.model_type = "olmo2", .architecture = "olmo2"},
    {.model_type = "olmo3", .architecture = "olmo2", .rope_theta = 5e5},
    {.model_type = "phi3", .architecture = "phi3"},
    {.model_type = "qwen2", .architecture = "qwen2"},
    {.model_type = "qwen3", .architecture = "qwen3"},
    {.model_type = "qwen3_moe", .architecture = "qwen3moe", .expert_ffn = "moe_intermediate_size"},
    {.model_type = "smollm3", .architecture = "smollm3", .tied = true, .rope_theta = 2e6, .halves = true},
    {.model_type = "stablelm", .architecture = "stablelm", .rotated = 0.25},
    {.model_type = "starcoder2", .architecture = "starcoder2", .tied = true},
};

// Whatever they say, the logits are the same: notes of the training, of the program that wrote the file, of where tensors lie.
constexpr std::string_view kHarmless =
    " architectures attention_dropout attn_implementation attn_pdrop auto_map bos_token_id cache_implementation "
    "chunk_size_feed_forward do_sample dtype embd_pdrop embedding_dropout eos_token_id ff_factor finetuning_task "
    "gradient_checkpointing hidden_dropout id2label initializer_range is_decoder is_llama_config "
    "keys_to_ignore_at_inference label2id layer_norm_type max_length max_window_layers mlp_type model_name model_type "
    "multi_query name_or_path norm_type num_ln_in_parallel_attn output_attentions output_hidden_states "
    "output_router_logits pad_token_id prefix pretraining_tp problem_type repetition_penalty resid_pdrop "
    "residual_dropout return_dict router_aux_loss_coef router_jitter_noise task_specific_params temperature "
    "tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version unk_token_id "
    "unsloth_fixed unsloth_version use_bfloat16 use_cache use_return_dict vocab_size ";

// What must say no, or nothing, because the forward pass has none of it.
constexpr std::string_view kAbsent[] = {"add_cross_attention",
                                        "alibi",
                                        "apply_residual_connection_post_layernorm",
                                        "audio_config",
                                        "clip_qkv",
                                        "is_encoder_decoder",
                                        "lm_head_bias",
                                        "mlp_only_layers",
                                        "n_routed_experts",
                                        "pruned_heads",
                                        "rope_interleaved",
                                        "text_config",
                                        "use_bidirectional_attention",
                                        "use_cross_attention",
                                        "use_mrope",
                                        "vision_config"};
// What must be 1.
constexpr std::string_view kOnes[] = {"decoder_sparse_step", "full_attn_mod", "interpolate_factor"};
// The same number: transformers 5 writes the second one, whatever the family's files had.
constexpr std::string_view kExpertCounts[] = {"num_experts", "num_local_experts"};

bool is_harmless(const std::string& name) { return name.starts_with('_') || kHarmless.contains(" " + name + " "); }

bool says_no(const nlohmann::json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         (value.is_number() && value.get<double>() == 0) || (value.is_structured() && value.empty());
}

Result<const HfFamily*> find_family(const HfObject& c) {
  const std::string type = TRY(c.text_or("model_type", ""));
  if (c.has("vision_config") || c.has("audio_config"))
    return fail(ErrorCode::kUnsupported,
                c.where() + ": the model of type " + runahead::quoted(type) +
                    " has parts for images or sound, which are not built; choose a text model",
                "model_type");
  const auto* found = std::ranges::find(kFamilies, type, &HfFamily::model_type);
  if (found == std::end(kFamilies)) {
    std::string known;
    for (const HfFamily& one : kFamilies) known += (known.empty() ? "" : ", ") + std::string(one.model_type);
    return fail(
        ErrorCode::kUnsupported,
        c.where() + ": the model_type " + runahead::quoted(type) + " is not supported; choose a model of " + known,
        "model_type");
  }
  if (!c.has("architectures")) return found;
  for (const std::string& name : TRY(c.texts("architectures")))
    if (!name.ends_with("ForCausalLM")) return c.unsupported("architectures");
  return found;
}

// One of HfModel's architecture.
class Keys {
 public:
  Keys(const HfObject& config, const HfModel& model, GgufKeys& out)
      : c_(config), m_(model), family_(*model.family), out_(out) {}

  Result<void> add(uint64_t context) {
    out_.str("general.architecture", family_.architecture);
    out_.str("general.name", family_.architecture);  // tokenizers and llama.cpp look for families in it
    TRY(add_sizes(context));
    TRY(check_activation());
    TRY(add_windows(context));
    if (!family_.expert_ffn.empty()) TRY(add_experts());
    if (is("granite")) TRY(add_multipliers());
    if (is("gemma2") || is("gemma3")) TRY(add_gemma());
    if (is("smollm3")) TRY(check_unrotated());
    if (is("falcon") && !TRY(c_.flag_or("parallel_attn", true))) return c_.unsupported("parallel_attn");
    if (family_.halves) out_.str("runahead.rope_pairing", "halves");
    return {};
  }

 private:
  bool is(std::string_view architecture) const { return family_.architecture == architecture; }
  std::string key(std::string_view name) const { return std::string(family_.architecture) + "." + std::string(name); }

  Result<void> add_sizes(uint64_t context) {
    const uint64_t model_dim = TRY(c_.size("hidden_size", limits::kModelDimMax));
    const char* ffn = is("falcon") ? "ffn_hidden_size" : "intermediate_size";
    const uint64_t ffn_dim = is("falcon") ? TRY(c_.size_or(ffn, limits::kModelDimMax, 4 * model_dim))
                                          : TRY(c_.size(ffn, limits::kModelDimMax));
    out_.u32(key("block_count"), m_.num_layers);
    out_.u32(key("context_length"), context);
    out_.u32(key("embedding_length"), model_dim);
    out_.u32(key("feed_forward_length"), ffn_dim);
    out_.u32(key("attention.head_count"), m_.num_heads);
    out_.u32(key("attention.head_count_kv"), m_.num_kv_heads);
    out_.u32(key("attention.key_length"), m_.head_dim);
    out_.u32(key("attention.value_length"), m_.head_dim);
    const bool layer_norm = is("falcon") || is("stablelm") || is("starcoder2");
    const char* epsilon = is("falcon")       ? "layer_norm_epsilon"
                          : is("stablelm")   ? "layer_norm_eps"
                          : is("starcoder2") ? "norm_epsilon"
                                             : "rms_norm_eps";
    out_.f32(key(layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
             TRY(c_.number(epsilon)));
    return {};
  }

  // In all layers, and with weights that sum to 1 (model/transformer/experts.cc).
  Result<void> add_experts() {
    uint64_t count = 0;
    for (const std::string_view name : kExpertCounts) {
      if (!c_.has(name)) continue;
      const uint64_t says = TRY(c_.size(name, limits::kModelExpertsMax));
      if (count != 0 && says != count) return c_.bad(name, std::to_string(says) + ", and num_experts says otherwise");
      count = says;
    }
    if (count == 0) return c_.bad("num_local_experts", "missing");
    out_.u32(key("expert_count"), count);
    out_.u32(key("expert_used_count"), TRY(c_.size("num_experts_per_tok", count)));
    out_.u32(key("expert_feed_forward_length"), TRY(c_.size(family_.expert_ffn, limits::kModelDimMax)));
    // Mixtral's always do. A file of Qwen's that does not say so means that they do not.
    constexpr const char* kSum = "norm_topk_prob";
    return is("qwen3moe") && !TRY(c_.flag_or(kSum, false)) ? c_.unsupported(kSum) : Result<void>();
  }

  Result<void> check_activation() {
    const bool gemma = family_.architecture.starts_with("gemma"), falcon = is("falcon"), star = is("starcoder2");
    const char* name = gemma && c_.has("hidden_activation") ? "hidden_activation"
                       : falcon                             ? "activation"
                                                            : "hidden_act";
    static_cast<void>(c_.has("hidden_act"));  // Gemma 1 has both, and means the other
    const std::string act = TRY(c_.text_or(name, gemma || star ? "gelu_pytorch_tanh" : falcon ? "gelu" : "silu"));
    // Gemma's "gelu" is the tanh formula all the same (transformers pull request 29402). Falcon's is not, and computed by it.
    const bool fits = gemma    ? act == "gelu_pytorch_tanh" || act == "gelu"
                      : falcon ? act == "gelu"
                      : star   ? act == "gelu_pytorch_tanh"
                               : act == "silu" || act == "swish";
    return fits ? Result<void>() : c_.unsupported(name);
  }

  // Which layers see a window: what layer_types says, or the family's habit.
  Result<std::vector<bool>> windowed_layers(uint64_t period) {
    std::vector<bool> windowed;
    if (!c_.has("layer_types")) {
      for (uint64_t layer = 0; layer < m_.num_layers; ++layer) windowed.push_back((layer + 1) % period != 0);
      return windowed;
    }
    for (const std::string& type : TRY(c_.texts("layer_types"))) {
      if (type != "sliding_attention" && type != "full_attention") return c_.unsupported("layer_types");
      windowed.push_back(type == "sliding_attention");
    }
    if (windowed.size() != m_.num_layers) return c_.bad("layer_types", "not one for each layer");
    return windowed;
  }

  Result<void> add_windows(uint64_t context) {
    const bool alternates = is("gemma2") || is("gemma3") || family_.model_type == "olmo3";
    const bool all = family_.model_type == "mistral" || family_.model_type == "mixtral" || is("starcoder2");
    const bool qwen = family_.architecture.starts_with("qwen");
    const bool has_switch = c_.has("use_sliding_window"),
               off = has_switch && !TRY(c_.flag_or("use_sliding_window", true));
    if (has_switch && !off) return c_.unsupported("use_sliding_window");
    if (alternates || all) {
      constexpr const char* kWindow = "sliding_window";
      if (!c_.has(kWindow)) return {};
      out_.u32(key("attention.sliding_window"), TRY(c_.size(kWindow, limits::kModelContextMax)));
      if (all) return {};
      const uint64_t own = is("gemma2") ? 2 : is("gemma3") ? 6 : 4;
      const uint64_t period =
          is("gemma3") ? TRY(c_.size_or("sliding_window_pattern", limits::kModelLayersMax, own)) : own;
      out_.booleans(key("attention.sliding_window_pattern"), TRY(windowed_layers(period)));
      return {};
    }
    if (!is("phi3") && !qwen && !is("smollm3")) return {};
    const bool none =
        !c_.has("sliding_window") || off || qwen || TRY(c_.size("sliding_window", limits::kModelContextMax)) >= context;
    if (!none) return c_.unsupported("sliding_window");
    for (const bool windowed : TRY(windowed_layers(1)))
      if (windowed) return c_.unsupported("layer_types");
    return {};
  }

  Result<void> add_multipliers() {
    for (const auto& [from, to] : {std::pair("embedding_multiplier", "embedding_scale"),
                                   {"residual_multiplier", "residual_scale"},
                                   {"attention_multiplier", "attention.scale"},
                                   {"logits_scaling", "logit_scale"}})
      out_.f32(key(to), TRY(c_.number_or(from, 1)));
    return {};
  }

  Result<void> add_gemma() {
    const double scalar = TRY(c_.number_or("query_pre_attn_scalar", 256));
    if (!(scalar > 0)) return c_.bad("query_pre_attn_scalar", "not positive");
    out_.f32(key("attention.scale"), 1 / std::sqrt(scalar));
    for (const auto& [name, usual] : {std::pair("attn_logit_softcapping", 50), {"final_logit_softcapping", 30}}) {
      const bool off = is("gemma3") || c_.says_null(name);  // Gemma 2 has both
      out_.f32(key(name), TRY(c_.number_or(name, off ? 0 : usual)));
    }
    return {};
  }

  Result<void> check_unrotated() {
    if (TRY(c_.size_or("no_rope_layer_interval", limits::kModelLayersMax, 4)) != 4 && !c_.has("no_rope_layers"))
      return c_.unsupported("no_rope_layer_interval");
    if (!c_.has("no_rope_layers")) return {};
    const std::vector<double> turns = TRY(c_.numbers("no_rope_layers"));
    if (turns.size() != m_.num_layers) return c_.bad("no_rope_layers", "not one number for each layer");
    for (size_t layer = 0; layer < turns.size(); ++layer)
      if ((turns[layer] != 0) != ((layer + 1) % 4 != 0)) return c_.unsupported("no_rope_layers");
    return {};
  }

  const HfObject& c_;
  const HfModel& m_;
  const HfFamily& family_;
  GgufKeys& out_;
};

// Of flags that say which tensors there are, so that a file of others is not read as another model.
Result<void> read_presence(const HfObject& c, HfModel& model) {
  const bool fused = model.family->architecture == "falcon" || model.family->architecture == "phi3";
  const std::string bias = fused ? "attn_qkv.bias" : "attn_q.bias";
  for (const auto& [flag, tensor, means] : {std::tuple("attention_bias", bias, true),
                                            {"use_qkv_bias", bias, true},
                                            {"use_bias", bias, true},
                                            {"bias", bias, true},
                                            {"mlp_bias", "ffn_down.bias", true},
                                            {"qk_layernorm", "attn_q_norm.weight", true},
                                            {"use_parallel_residual", "ffn_norm.weight", false}})
    if (c.has(flag))
      model.first_layer.emplace_back("blk.0." + std::string(tensor), TRY(c.flag_or(flag, false)) == means);
  return {};
}

Result<void> read_heads(const HfObject& c, HfModel& model) {
  model.num_layers = TRY(c.size("num_hidden_layers", limits::kModelLayersMax));
  model.num_heads = TRY(c.size("num_attention_heads", limits::kModelHeadsMax));
  if (model.family->architecture == "falcon") {
    const bool grouped = TRY(c.flag_or("new_decoder_architecture", false));
    const bool one = !grouped && TRY(c.flag_or("multi_query", true));
    const uint64_t kv_heads = TRY(c.size_or("num_kv_heads", limits::kModelHeadsMax, model.num_heads));
    model.num_kv_heads = one ? 1 : grouped ? kv_heads : model.num_heads;
    model.grouped_qkv = !one;
  } else {
    model.num_kv_heads = TRY(c.size_or("num_key_value_heads", limits::kModelHeadsMax, model.num_heads));
  }
  const uint64_t model_dim = TRY(c.size("hidden_size", limits::kModelDimMax));
  if (!c.has("head_dim") && model_dim % model.num_heads != 0) return c.bad("hidden_size", "no multiple of the heads");
  if (model.num_heads % model.num_kv_heads != 0) return c.bad("num_attention_heads", "no multiple of its K/V heads");
  model.head_dim = TRY(c.size_or("head_dim", limits::kModelHeadDimMax, model_dim / model.num_heads));
  return {};
}

constexpr const char* kPositions = "max_position_embeddings";

// Falcon's first ones do not say it.
Result<uint64_t> read_positions(const HfObject& c, const HfFamily& family) {
  return family.architecture == "falcon" ? c.size_or(kPositions, limits::kModelContextMax, 2048)
                                         : c.size(kPositions, limits::kModelContextMax);
}

// Of Phi-3, whose windows its readers of GGUF leave out: within the window there are none.
Result<uint64_t> read_context(const HfObject& c, const HfFamily& family, uint64_t context) {
  if (family.architecture != "phi3") return context;
  return std::min(context, TRY(c.size_or("sliding_window", limits::kModelContextMax, context)));
}

Result<void> refuse_unread(const HfObject& c, const HfFamily& family) {
  if (family.expert_ffn.empty())
    for (const std::string_view name : kExpertCounts)
      if (const nlohmann::json* value = c.find(name); value != nullptr && !says_no(*value)) return c.unsupported(name);
  for (const std::string_view name : kAbsent)
    if (const nlohmann::json* value = c.find(name); value != nullptr && !says_no(*value)) return c.unsupported(name);
  for (const std::string_view name : kOnes)
    if (TRY(c.number_or(name, 1)) != 1) return c.unsupported(name);
  for (const std::string& name : c.unread()) {
    if (is_harmless(name)) continue;
    return fail(
        ErrorCode::kUnsupported,
        c.named(name) + " is " + c.shown(name) +
            ", and this version does not know what that changes; answers could be wrong, so choose another model",
        name);
  }
  return {};
}

}  // namespace

Result<HfModel> read_hf_config(const nlohmann::json& config, const std::string& name, GgufKeys& keys) {
  const HfObject c(config, name);
  HfModel model;
  TRY(read_hf_quantization(c, model, keys));
  model.family = TRY(find_family(c));
  TRY(read_heads(c, model));
  TRY(read_presence(c, model));
  model.tied = TRY(c.flag_or("tie_word_embeddings", model.family->tied));
  const uint64_t positions = TRY(read_positions(c, *model.family));
  TRY(Keys(c, model, keys).add(TRY(read_context(c, *model.family, positions))));
  TRY(read_hf_rope(c, positions, model, keys));  // Phi-3's factors are for all of them, window or not
  TRY(refuse_unread(c, *model.family));
  return model;
}

}  // namespace runahead
