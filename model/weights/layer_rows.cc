#include "model/weights/layer_rows.h"

#include <string>

#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

// The order of a head's rows: for each of `padded` places the row of the file's, or -1.
using HeadOrder = std::vector<int32_t>;

// The two halves are what rotate-half RoPE turns: place i of each is pair i.
HeadOrder rotary_order(const LayerConfig& layer, int32_t head_dim, int32_t padded) {
  const bool interleaved = layer.rope_pairing == RopePairing::kInterleaved;
  const int32_t pairs = layer.rotated / 2, step = interleaved ? 2 : 1, second = interleaved ? 1 : pairs;
  HeadOrder order(static_cast<size_t>(padded), -1);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const bool turned = i < pairs;  // behind them the others, also two at a time
    const int32_t first = turned ? step * i : 2 * i;
    order[static_cast<size_t>(i)] = first;
    order[static_cast<size_t>(padded / 2 + i)] = turned ? first + second : first + 1;
  }
  return order;
}

HeadOrder plain_order(int32_t head_dim, int32_t padded) {
  HeadOrder order(static_cast<size_t>(padded), -1);
  for (int32_t i = 0; i < head_dim; ++i) order[static_cast<size_t>(i)] = i;
  return order;
}

void add(WeightRows& rows, const QuantMatrixView& m, int64_t row) { rows.push_back({m.type, m.row(row)}); }

void add_heads(const QuantMatrixView& m, int32_t head_dim, const HeadOrder& order, WeightRows& rows) {
  for (int64_t head = 0; head < m.rows; head += head_dim)
    for (const int32_t row : order) {
      if (row < 0) rows.emplace_back();
      else add(rows, m, head + row);
    }
}

// Numbers of one head, or of several one after the other.
std::vector<float> ordered(std::span<const float> values, int32_t head_dim, const HeadOrder& order) {
  std::vector<float> out;
  for (size_t head = 0; head < values.size(); head += static_cast<size_t>(head_dim))
    for (const int32_t i : order) out.push_back(i < 0 ? 0.0f : values[head + static_cast<size_t>(i)]);
  return out;
}

Result<void> check_matrix(const QuantMatrixView& m, const std::string& name, int64_t rows, int64_t cols) {
  if (m.rows == rows && m.cols == cols) return {};
  return fail(ErrorCode::kInvalidModel, "tensor " + name + " is [" + std::to_string(m.rows) + ", " +
                                            std::to_string(m.cols) + "], but the model needs [" + std::to_string(rows) +
                                            ", " + std::to_string(cols) + "]");
}

Result<QuantMatrixView> matrix(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  const QuantMatrixView m = TRY(file.matrix(name));
  TRY(check_matrix(m, name, rows, cols));
  return m;
}

// Of what is packed. What is mapped from a cache has been looked at when it was packed.
Result<QuantMatrixView> finite(QuantMatrixView m, const std::string& name) {
  for (int64_t r = 0; r < m.rows; ++r)
    if (!is_finite(m.type, m.row(r)))
      return fail(ErrorCode::kInvalidModel, "tensor " + name + " holds weights that are no numbers (row " +
                                                std::to_string(r) +
                                                "); download the file again, or make it from weights that are whole");
  return m;
}

Result<QuantMatrixView> finite_matrix(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  return finite(TRY(matrix(file, name, rows, cols)), name);
}

// Where the matrices of a layer come from, and where those lie that the file has in a form that is not packed.
struct Source {
  const Gguf& file;
  DecodedBytes& decoded;
};

Result<QuantMatrixView> finite_matrix(const Source& from, const std::string& name, int64_t rows, int64_t cols) {
  TRY(matrix(from.file, name, rows, cols));
  return finite(TRY(packable_matrix(from.file, name, from.decoded)), name);
}

QuantMatrixView part_of(const QuantMatrixView& all, int64_t begin, int64_t rows) {
  QuantMatrixView view = all;
  view.rows = rows;
  view.data = all.row(begin).data();
  return view;
}

Result<WeightRows> finite_rows(const Source& from, const std::string& name, int64_t rows, int64_t cols) {
  return rows_of(TRY(finite_matrix(from, name, rows, cols)));
}

struct QkvViews {
  QuantMatrixView q, k, v;
};

// Of three tensors, or of one that holds their rows one after the other.
Result<QkvViews> qkv_views(const Source& from, const ModelShape& s, const LayerTensors& tensors) {
  const int64_t q_rows = int64_t{s.num_heads} * s.head_dim, kv_rows = int64_t{s.num_kv_heads} * s.head_dim;
  if (tensors.qkv.weight.empty()) {
    QkvViews views;
    views.q = TRY(finite_matrix(from, tensors.q.weight, q_rows, s.model_dim));
    views.k = TRY(finite_matrix(from, tensors.k.weight, kv_rows, s.model_dim));
    views.v = TRY(finite_matrix(from, tensors.v.weight, kv_rows, s.model_dim));
    return views;
  }
  const QuantMatrixView all = TRY(finite_matrix(from, tensors.qkv.weight, q_rows + 2 * kv_rows, s.model_dim));
  return QkvViews{part_of(all, 0, q_rows), part_of(all, q_rows, kv_rows), part_of(all, q_rows + kv_rows, kv_rows)};
}

Result<FfnRows> ffn_rows(const Source& from, const ModelConfig& config, const LayerTensors& tensors) {
  const ModelShape& s = config.shape;
  FfnRows rows;
  rows.down = TRY(finite_rows(from, tensors.down.weight, s.model_dim, s.ffn_dim));
  if (config.layer.fused_gate_up) {
    const QuantMatrixView both = TRY(finite_matrix(from, tensors.up.weight, 2 * int64_t{s.ffn_dim}, s.model_dim));
    rows.gate = rows_of(part_of(both, 0, s.ffn_dim)), rows.up = rows_of(part_of(both, s.ffn_dim, s.ffn_dim));
    return rows;
  }
  if (!tensors.gate.weight.empty()) rows.gate = TRY(finite_rows(from, tensors.gate.weight, s.ffn_dim, s.model_dim));
  rows.up = TRY(finite_rows(from, tensors.up.weight, s.ffn_dim, s.model_dim));
  return rows;
}

// The rows of one expert's product, of the tensor of all.
Result<WeightRows> expert_rows(const Source& from, const std::string& name, int32_t expert, int32_t experts,
                               int64_t rows, int64_t cols) {
  const QuantMatrixView m = TRY(from.file.matrix_of(name, expert, experts));
  TRY(check_matrix(m, name, rows, cols));
  return rows_of(TRY(finite(m, name)));
}

Result<void> add_ffn(const Source& from, const ModelConfig& config, const LayerTensors& tensors, LayerRows& rows) {
  const ModelShape& s = config.shape;
  const int32_t experts = config.layer.experts;
  if (experts == 0) {
    rows.ffn.push_back(TRY(ffn_rows(from, config, tensors)));
    return {};
  }
  rows.router = TRY(finite_rows(from, tensors.router, experts, s.model_dim));
  for (const LayerTensors::Expert& expert : tensors.experts) {
    FfnRows& ffn = rows.ffn.emplace_back();
    ffn.gate = TRY(finite_rows(from, expert.gate, s.ffn_dim, s.model_dim));
    ffn.up = TRY(finite_rows(from, expert.up, s.ffn_dim, s.model_dim));
    ffn.down = TRY(finite_rows(from, expert.down, s.model_dim, s.ffn_dim));
  }
  if (!tensors.experts.empty()) return {};
  for (int32_t e = 0; e < experts; ++e) {
    FfnRows& ffn = rows.ffn.emplace_back();
    ffn.gate = TRY(expert_rows(from, tensors.gate.weight, e, experts, s.ffn_dim, s.model_dim));
    ffn.up = TRY(expert_rows(from, tensors.up.weight, e, experts, s.ffn_dim, s.model_dim));
    ffn.down = TRY(expert_rows(from, tensors.down.weight, e, experts, s.model_dim, s.ffn_dim));
  }
  return {};
}

Result<std::vector<float>> vector_or_none(const Gguf& file, const std::string& name, int64_t size) {
  return name.empty() ? std::vector<float>() : file.vector(name, size);
}

// Of the norm of Q or K with so many heads.
Result<std::vector<float>> qk_gains(const Gguf& file, const ModelConfig& config, const std::string& name,
                                    int64_t heads) {
  const int64_t dim = config.shape.head_dim;
  switch (config.layer.qk_norm) {
    case QkNorm::kNone:
      return std::vector<float>();
    case QkNorm::kHead:
      return file.vector(name, dim);
    case QkNorm::kRow:
      return file.vector(name, heads * dim);
    case QkNorm::kOwnHead:
      break;
  }
  const QuantMatrixView m = TRY(finite_matrix(file, name, heads, dim));
  std::vector<float> gains(static_cast<size_t>(heads * dim));
  dequantize(m.type, {m.data, m.row_bytes() * static_cast<size_t>(heads)}, gains);
  return gains;
}

// Of Q, K and V together; empty if none has one.
Result<std::vector<float>> qkv_bias(const Gguf& file, const ModelShape& s, const LayerTensors& tensors) {
  const int64_t q_rows = int64_t{s.num_heads} * s.head_dim, kv_rows = int64_t{s.num_kv_heads} * s.head_dim;
  if (!tensors.qkv.weight.empty()) return vector_or_none(file, tensors.qkv.bias, q_rows + 2 * kv_rows);
  if (tensors.q.bias.empty() && tensors.k.bias.empty() && tensors.v.bias.empty()) return std::vector<float>();
  std::vector<float> all;
  const auto append = [&](const std::string& name, int64_t rows) -> Result<void> {
    std::vector<float> part = TRY(vector_or_none(file, name, rows));
    part.resize(static_cast<size_t>(rows));
    all.insert(all.end(), part.begin(), part.end());
    return {};
  };
  TRY(append(tensors.q.bias, q_rows));
  TRY(append(tensors.k.bias, kv_rows));
  TRY(append(tensors.v.bias, kv_rows));
  return all;
}

}  // namespace

WeightRows rows_of(const QuantMatrixView& matrix) {
  WeightRows rows;
  for (int64_t r = 0; r < matrix.rows; ++r) add(rows, matrix, r);
  return rows;
}

Result<QuantMatrixView> embedding_matrix(const Gguf& file, const ModelShape& shape) {
  return matrix(file, "token_embd.weight", shape.vocab_size, shape.model_dim);
}

Result<QuantMatrixView> head_matrix(const Gguf& file, const ModelConfig& config) {
  const ModelShape& s = config.shape;
  const QuantMatrixView embedding = TRY(finite_matrix(file, "token_embd.weight", s.vocab_size, s.model_dim));
  return config.tied_head ? embedding : finite_matrix(file, "output.weight", s.vocab_size, s.model_dim);
}

Result<LayerRows> layer_rows(const Gguf& file, const ModelConfig& config, int32_t layer, int32_t padded_head_dim) {
  const ModelShape& s = config.shape;
  const LayerTensors tensors(file, config.layer, layer);
  LayerRows rows;
  const Source from{file, rows.decoded};
  const QkvViews qkv = TRY(qkv_views(from, s, tensors));
  const HeadOrder rotary = rotary_order(config.layer, s.head_dim, padded_head_dim);
  add_heads(qkv.q, s.head_dim, rotary, rows.qkv);
  add_heads(qkv.k, s.head_dim, rotary, rows.qkv);
  add_heads(qkv.v, s.head_dim, plain_order(s.head_dim, padded_head_dim), rows.qkv);
  rows.attention_out =
      TRY(finite_rows(from, tensors.attention_out.weight, s.model_dim, int64_t{s.num_heads} * s.head_dim));
  TRY(add_ffn(from, config, tensors, rows));
  return rows;
}

Result<LayerVectors> layer_vectors(const Gguf& file, const ModelConfig& config, int32_t layer,
                                   int32_t padded_head_dim) {
  const ModelShape& s = config.shape;
  const LayerTensors tensors(file, config.layer, layer);
  const HeadOrder rotary = rotary_order(config.layer, s.head_dim, padded_head_dim);
  LayerVectors vectors;
  const std::vector<float> bias = TRY(qkv_bias(file, s, tensors));
  if (!bias.empty()) {
    const size_t turned = static_cast<size_t>(s.num_heads + s.num_kv_heads) * static_cast<size_t>(s.head_dim);
    vectors.qkv_bias = ordered(std::span(bias).first(turned), s.head_dim, rotary);
    const std::vector<float> of_v =
        ordered(std::span(bias).subspan(turned), s.head_dim, plain_order(s.head_dim, padded_head_dim));
    vectors.qkv_bias.insert(vectors.qkv_bias.end(), of_v.begin(), of_v.end());
  }
  vectors.attention_out_bias = TRY(vector_or_none(file, tensors.attention_out.bias, s.model_dim));
  vectors.up_bias = TRY(vector_or_none(file, tensors.up.bias, s.ffn_dim));
  vectors.down_bias = TRY(vector_or_none(file, tensors.down.bias, s.model_dim));
  vectors.q_norm = ordered(TRY(qk_gains(file, config, tensors.q_norm, s.num_heads)), s.head_dim, rotary);
  vectors.k_norm = ordered(TRY(qk_gains(file, config, tensors.k_norm, s.num_kv_heads)), s.head_dim, rotary);
  return vectors;
}

}  // namespace runahead
