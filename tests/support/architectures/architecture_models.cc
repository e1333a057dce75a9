#include "tests/support/architectures/architecture_models.h"

namespace runahead::test {
namespace {

class Writer {
 public:
  explicit Writer(const ArchitectureModel& model) : m_(model), random_(seed_of(model.name)) {}

  GgufBuilder build() {
    const TinyVocabulary vocabulary = tiny_vocabulary();
    vocab_ = static_cast<int32_t>(vocabulary.tokens.size());
    add_keys();
    add_tiny_tokenizer(file_, vocabulary);
    add_matrix("token_embd", vocab_, m_.shape.model_dim);
    if (!m_.shape.tied_head) add_matrix("output", vocab_, m_.shape.model_dim);
    add_norm("output_norm", m_.shape.model_dim);
    for (const auto& [name, values] : m_.vectors) file_.f32_tensor(name, {values.size()}, values);
    for (int32_t layer = 0; layer < m_.shape.num_layers; ++layer) add_layer("blk." + std::to_string(layer) + ".");
    return std::move(file_);
  }

 private:
  static uint64_t seed_of(const std::string& name) {
    uint64_t seed = 17;
    for (const char c : name) seed = seed * 131 + static_cast<uint8_t>(c);
    return seed;
  }
  std::string key(const std::string& name) const { return m_.architecture + "." + name; }
  void count(const char* name, int32_t value) { file_.u32(key(name), static_cast<uint32_t>(value)); }

  void add_keys() {
    const TinyShape& s = m_.shape;
    file_.str("general.architecture", m_.architecture);
    file_.str("general.name", "tiny");  // llama.cpp looks for families in it
    count("block_count", s.num_layers), count("context_length", s.context_len);
    count("embedding_length", s.model_dim), count("feed_forward_length", s.ffn_dim);
    count("attention.head_count", s.num_heads), count("attention.head_count_kv", s.num_kv_heads);
    if (s.head_dim * s.num_heads != s.model_dim)
      count("attention.key_length", s.head_dim), count("attention.value_length", s.head_dim);
    count("rope.dimension_count", m_.rotated > 0 ? m_.rotated : s.head_dim);
    if (m_.experts > 0) count("expert_count", m_.experts), count("expert_used_count", m_.experts_used);
    if (m_.window > 0) count("attention.sliding_window", m_.window);
    file_.f32(key("rope.freq_base"), s.rope_base);
    file_.f32(key(m_.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
              1e-5f);
    for (const auto& [name, value] : m_.numbers) file_.f32(key(name), value);
    for (const auto& [name, value] : m_.counts) file_.u32(key(name), value);
    for (const auto& [name, value] : m_.words) file_.str(key(name), value);
  }

  std::vector<float> floats(int32_t count, float centre, float spread) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = centre + random_.uniform() * spread;
    return values;
  }
  void add_matrix(const std::string& name, int32_t rows, int32_t cols) {
    const size_t weights = static_cast<size_t>(rows) * static_cast<size_t>(cols);
    const float deviation = 1 / std::sqrt(static_cast<float>(cols));
    file_.tensor(name + ".weight", {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)}, QuantType::kF32,
                 random_.blocks(QuantType::kF32, weights, deviation));
  }
  void add_vector(const std::string& name, int32_t size, float centre, float spread) {
    file_.f32_tensor(name, {static_cast<uint64_t>(size)}, floats(size, centre, spread));
  }
  void add_norm(const std::string& name, int32_t size) {
    add_vector(name + ".weight", size, 1, 0.4f);
    if (m_.norm_bias) add_vector(name + ".bias", size, 0, 0.3f);
  }
  void add_product(const std::string& name, int32_t rows, int32_t cols, bool bias) {
    add_matrix(name, rows, cols);
    if (bias) add_vector(name + ".bias", rows, 0, 0.5f);
  }

  void add_layer(const std::string& block) {
    const TinyShape& s = m_.shape;
    const int32_t q = s.num_heads * s.head_dim, kv = s.num_kv_heads * s.head_dim;
    if (m_.pre_norms) add_norm(block + "attn_norm", s.model_dim);
    if (m_.second_norm) add_norm(block + "attn_norm_2", s.model_dim);
    if (s.fused_qkv) {
      add_product(block + "attn_qkv", q + 2 * kv, s.model_dim, m_.qkv_bias);
    } else {
      add_product(block + "attn_q", q, s.model_dim, m_.qkv_bias);
      add_product(block + "attn_k", kv, s.model_dim, m_.qkv_bias);
      add_product(block + "attn_v", kv, s.model_dim, m_.qkv_bias);
    }
    add_qk_norms(block);
    add_product(block + "attn_output", s.model_dim, q, m_.out_bias);
    if (m_.post_norms) add_norm(block + "post_attention_norm", s.model_dim);
    if (m_.pre_norms && m_.ffn_norm) add_norm(block + "ffn_norm", s.model_dim);
    if (m_.experts > 0) return add_experts(block);
    if (m_.gate && !m_.fused_gate_up) add_matrix(block + "ffn_gate", s.ffn_dim, s.model_dim);
    add_product(block + "ffn_up", m_.fused_gate_up ? 2 * s.ffn_dim : s.ffn_dim, s.model_dim, m_.ffn_bias);
    add_product(block + "ffn_down", s.model_dim, s.ffn_dim, m_.ffn_bias);
    if (m_.post_norms) add_norm(block + "post_ffw_norm", s.model_dim);
  }

  void add_experts(const std::string& block) {
    const TinyShape& s = m_.shape;
    add_matrix(block + "ffn_gate_inp", m_.experts, s.model_dim);
    const auto add = [&](const std::string& name, int32_t rows, int32_t cols) {
      const auto width = static_cast<uint64_t>(cols), height = static_cast<uint64_t>(rows);
      const auto experts = static_cast<uint64_t>(m_.experts);
      const std::vector<std::byte> all =
          random_.blocks(QuantType::kF32, experts * width * height, 1 / std::sqrt(static_cast<float>(cols)));
      if (!m_.experts_apart) return file_.tensor(name + "_exps.weight", {width, height, experts}, QuantType::kF32, all);
      const auto bytes = static_cast<int64_t>(all.size() / experts);
      for (int32_t e = 0; e < m_.experts; ++e)
        file_.tensor(name + "." + std::to_string(e) + ".weight", {width, height}, QuantType::kF32,
                     {all.begin() + e * bytes, all.begin() + (e + 1) * bytes});
    };
    add(block + "ffn_gate", s.ffn_dim, s.model_dim);
    add(block + "ffn_up", s.ffn_dim, s.model_dim);
    add(block + "ffn_down", s.model_dim, s.ffn_dim);
  }

  void add_qk_norms(const std::string& block) {
    const TinyShape& s = m_.shape;
    for (const auto& [name, heads] :
         {std::pair("attn_q_norm.weight", s.num_heads), {"attn_k_norm.weight", s.num_kv_heads}}) {
      const auto dim = static_cast<uint64_t>(s.head_dim), count = static_cast<uint64_t>(heads);
      if (m_.qk_norm == QkNorm::kHead) add_vector(block + name, s.head_dim, 1, 0.4f);
      if (m_.qk_norm == QkNorm::kRow) add_vector(block + name, heads * s.head_dim, 1, 0.4f);
      if (m_.qk_norm == QkNorm::kOwnHead)
        file_.f32_tensor(block + name, {dim, count}, floats(heads * s.head_dim, 1, 0.4f));
    }
  }

  const ArchitectureModel& m_;
  RandomWeights random_;
  GgufBuilder file_;
  int32_t vocab_ = 0;
};

TinyShape layers(int32_t count) { return {.num_layers = count}; }

std::vector<float> growing(int32_t count, float from, float to) {
  std::vector<float> values;
  for (int32_t i = 0; i < count; ++i)
    values.push_back(from + (to - from) * static_cast<float>(i) / static_cast<float>(count));
  return values;
}

// Heads of 32, four on two of K/V, unless the case is about them.
const TinyShape kWideHeads{.num_layers = 3, .model_dim = 96, .num_heads = 4, .num_kv_heads = 2, .head_dim = 32};
const TinyShape kPlain{.num_layers = 3, .model_dim = 128};
const TinyShape kOwnHead{.num_layers = 3, .model_dim = 128, .tied_head = false};
const ArchitectureModel kModels[] = {
    {.name = "llama", .architecture = "llama", .shape = kPlain},
    {.name = "llama31", .architecture = "llama", .vectors = {{"rope_freqs.weight", growing(16, 1, 8)}}},
    {.name = "llama-biases", .architecture = "llama", .qkv_bias = true, .out_bias = true},
    {.name = "llama-yarn",
     .architecture = "llama",
     .numbers = {{"rope.scaling.factor", 4}},
     .counts = {{"rope.scaling.original_context_length", 256}},
     .words = {{"rope.scaling.type", "yarn"}}},
    {.name = "mixtral",
     .architecture = "llama",
     .shape = {.num_layers = 3, .model_dim = 128, .ffn_dim = 96},
     .experts = 4,
     .experts_used = 2},
    {.name = "qwen3moe",
     .architecture = "qwen3moe",
     .shape = {.num_layers = 3, .model_dim = 128, .ffn_dim = 96},
     .qk_norm = QkNorm::kHead,
     .experts = 40,
     .experts_used = 8,
     .counts = {{"expert_feed_forward_length", 96}}},
    {.name = "qwen2", .architecture = "qwen2", .shape = kPlain, .qkv_bias = true},
    {.name = "qwen3", .architecture = "qwen3", .qk_norm = QkNorm::kHead},
    {.name = "gemma", .architecture = "gemma", .shape = kWideHeads},
    {.name = "gemma2", .architecture = "gemma2", .shape = layers(4), .window = 100, .post_norms = true},
    {.name = "gemma2-caps",
     .architecture = "gemma2",
     .shape = layers(3),
     .window = 64,
     .post_norms = true,
     .numbers = {{"attn_logit_softcapping", 2}, {"final_logit_softcapping", 3}}},
    {.name = "gemma3",
     .architecture = "gemma3",
     .shape = layers(7),
     .qk_norm = QkNorm::kHead,
     .window = 70,
     .post_norms = true,
     .numbers = {{"rope.scaling.factor", 8}},
     .words = {{"rope.scaling.type", "linear"}}},
    {.name = "falcon-7b",
     .architecture = "falcon",
     .shape = {.num_layers = 3, .model_dim = 128, .num_heads = 4, .num_kv_heads = 1, .fused_qkv = true},
     .norm = NormKind::kLayer,
     .ffn_norm = false,
     .gate = false,
     .norm_bias = true},
    {.name = "falcon-40b",
     .architecture = "falcon",
     .shape = {.num_layers = 3, .model_dim = 128, .num_heads = 4, .num_kv_heads = 2, .fused_qkv = true},
     .norm = NormKind::kLayer,
     .ffn_norm = false,
     .second_norm = true,
     .gate = false,
     .norm_bias = true},
    {.name = "phi3",
     .architecture = "phi3",
     .shape = {.num_layers = 3, .model_dim = 128, .fused_qkv = true},
     .fused_gate_up = true},
    {.name = "phi4-mini",  // LongRoPE over a part of the head
     .architecture = "phi3",
     .shape = {.num_layers = 3, .model_dim = 128, .fused_qkv = true},
     .rotated = 24,
     .fused_gate_up = true,
     .numbers = {{"rope.scaling.attn_factor", 1.19f}},
     .counts = {{"rope.scaling.original_context_length", 1024}},
     .vectors = {{"rope_factors_long.weight", growing(12, 1, 30)}, {"rope_factors_short.weight", growing(12, 1, 2)}}},
    {.name = "smollm3", .architecture = "smollm3", .shape = layers(5)},
    {.name = "granite",
     .architecture = "granite",
     .numbers = {{"embedding_scale", 6}, {"residual_scale", 0.4f}, {"attention.scale", 0.11f}, {"logit_scale", 3}}},
    {.name = "olmo2",
     .architecture = "olmo2",
     .shape = kOwnHead,
     .qk_norm = QkNorm::kRow,
     .pre_norms = false,
     .post_norms = true},
    {.name = "olmo3",
     .architecture = "olmo2",
     .shape = {.num_layers = 5, .model_dim = 128, .tied_head = false},
     .qk_norm = QkNorm::kRow,
     .window = 80,
     .pre_norms = false,
     .post_norms = true,
     .numbers = {{"rope.scaling.factor", 8}, {"rope.scaling.attn_factor", 1.2f}},
     .counts = {{"rope.scaling.original_context_length", 512}},
     .words = {{"rope.scaling.type", "yarn"}}},
    {.name = "stablelm-2",
     .architecture = "stablelm",
     .shape = kOwnHead,
     .norm = NormKind::kLayer,
     .rotated = 8,
     .qkv_bias = true,
     .norm_bias = true},
    {.name = "stablelm-2-12b",
     .architecture = "stablelm",
     .shape = kOwnHead,
     .norm = NormKind::kLayer,
     .qk_norm = QkNorm::kOwnHead,
     .rotated = 8,
     .ffn_norm = false,
     .norm_bias = true},
    {.name = "starcoder2",
     .architecture = "starcoder2",
     .shape = kPlain,
     .norm = NormKind::kLayer,
     .gate = false,
     .qkv_bias = true,
     .out_bias = true,
     .ffn_bias = true,
     .norm_bias = true},
};

}  // namespace

const std::vector<ArchitectureModel>& architecture_models() {
  static const std::vector<ArchitectureModel> models(std::begin(kModels), std::end(kModels));
  return models;
}

void write_architecture_model(const std::filesystem::path& path, const ArchitectureModel& model) {
  Writer(model).build().write(path);
}

}  // namespace runahead::test
