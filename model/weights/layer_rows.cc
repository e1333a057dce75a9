#include "model/weights/layer_rows.h"

#include <string>

#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

// What the file does not have is empty.
void add(WeightRows& rows, const QuantMatrixView& m, int64_t row) { rows.push_back({m.type, m.row(row)}); }

// Heads of Q or K. The two halves of a head are what rotate-half RoPE turns: place i of each is pair i.
void add_rotary_heads(const QuantMatrixView& m, RopePairing pairing, int64_t head_dim, int64_t padded,
                      WeightRows& rows) {
  const bool interleaved = pairing == RopePairing::kInterleaved;
  const int64_t half = head_dim / 2, step = interleaved ? 2 : 1, second = interleaved ? 1 : half;
  for (int64_t head = 0; head < m.rows; head += head_dim) {
    const auto begin = static_cast<int64_t>(rows.size());
    for (int64_t i = 0; i < half; ++i) add(rows, m, head + step * i);
    rows.resize(static_cast<size_t>(begin + padded / 2));
    for (int64_t i = 0; i < half; ++i) add(rows, m, head + step * i + second);
    rows.resize(static_cast<size_t>(begin + padded));
  }
}

void add_heads(const QuantMatrixView& m, int64_t head_dim, int64_t padded, WeightRows& rows) {
  for (int64_t head = 0; head < m.rows; head += head_dim) {
    const auto begin = static_cast<int64_t>(rows.size());
    for (int64_t i = 0; i < head_dim; ++i) add(rows, m, head + i);
    rows.resize(static_cast<size_t>(begin + padded));
  }
}

Result<QuantMatrixView> matrix(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  const QuantMatrixView m = TRY(file.matrix(name));
  if (m.rows != rows || m.cols != cols)
    return fail(ErrorCode::kInvalidModel, "tensor " + name + " is [" + std::to_string(m.rows) + ", " +
                                              std::to_string(m.cols) + "], but the model needs [" +
                                              std::to_string(rows) + ", " + std::to_string(cols) + "]");
  return m;
}

// Of what is packed. What is mapped from a cache has been looked at when it was packed.
Result<QuantMatrixView> finite_matrix(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  const QuantMatrixView m = TRY(matrix(file, name, rows, cols));
  for (int64_t r = 0; r < m.rows; ++r)
    if (!is_finite(m.type, m.row(r)))
      return fail(ErrorCode::kInvalidModel, "tensor " + name + " holds weights that are no numbers (row " +
                                                std::to_string(r) +
                                                "); download the file again, or make it from weights that are whole");
  return m;
}

struct QkvViews {
  QuantMatrixView q, k, v;
};

// Of three tensors, or of one that holds their rows one after the other.
Result<QkvViews> qkv_views(const Gguf& file, const ModelShape& s, const LayerTensors& tensors) {
  const int64_t q_rows = int64_t{s.num_heads} * s.head_dim, kv_rows = int64_t{s.num_kv_heads} * s.head_dim;
  if (tensors.qkv.empty()) {
    QkvViews views;
    views.q = TRY(finite_matrix(file, tensors.q, q_rows, s.model_dim));
    views.k = TRY(finite_matrix(file, tensors.k, kv_rows, s.model_dim));
    views.v = TRY(finite_matrix(file, tensors.v, kv_rows, s.model_dim));
    return views;
  }
  const QuantMatrixView all = TRY(finite_matrix(file, tensors.qkv, q_rows + 2 * kv_rows, s.model_dim));
  const auto part = [&](int64_t begin, int64_t rows) {
    QuantMatrixView view = all;
    view.rows = rows;
    view.data = all.row(begin).data();
    return view;
  };
  return QkvViews{part(0, q_rows), part(q_rows, kv_rows), part(q_rows + kv_rows, kv_rows)};
}

Result<WeightRows> finite_rows(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  return rows_of(TRY(finite_matrix(file, name, rows, cols)));
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
  const LayerTensors tensors(file, layer);
  const QkvViews qkv = TRY(qkv_views(file, s, tensors));
  const RopePairing pairing = config.layer.rope.pairing;
  LayerRows rows;
  add_rotary_heads(qkv.q, pairing, s.head_dim, padded_head_dim, rows.qkv);
  add_rotary_heads(qkv.k, pairing, s.head_dim, padded_head_dim, rows.qkv);
  add_heads(qkv.v, s.head_dim, padded_head_dim, rows.qkv);
  rows.attention_out = TRY(finite_rows(file, tensors.attention_out, s.model_dim, int64_t{s.num_heads} * s.head_dim));
  switch (config.layer.ffn) {
    case FfnKind::kSiluGated:
      rows.gate = TRY(finite_rows(file, tensors.gate, s.ffn_dim, s.model_dim));
      rows.up = TRY(finite_rows(file, tensors.up, s.ffn_dim, s.model_dim));
      break;
  }
  rows.down = TRY(finite_rows(file, tensors.down, s.model_dim, s.ffn_dim));
  return rows;
}

}  // namespace runahead
