// The Llama model as its papers write it, in double and with no cache: the oracle of the transformer's tests. It reads
// the same file through the reader but shares nothing with the kernels: weights are dequantised, pairs are rotated
// side by side as the file has them, and every token attends to all before it in one softmax.
#pragma once

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/model_config.h"

namespace runahead::test {

class NaiveLlama {
 public:
  explicit NaiveLlama(const Gguf& file) : file_(file) {
    auto config = read_model_config(file);
    RUNAHEAD_CHECK(config.has_value(), "the oracle reads what the engine reads");
    config_ = std::move(*config);
  }

  // Logits of every token, [tokens, vocab_size].
  std::vector<std::vector<double>> logits(const std::vector<TokenId>& tokens) const {
    std::vector<Row> x;
    const Matrix embedding = matrix("token_embd.weight");
    for (TokenId token : tokens) x.push_back(embedding.rows[static_cast<size_t>(token)]);
    for (int32_t layer = 0; layer < config_.shape.num_layers; ++layer) add_layer(layer, x);
    const Matrix head = matrix(config_.tied_head ? "token_embd.weight" : "output.weight");
    std::vector<Row> out;
    for (const Row& row : x) out.push_back(head.times(norm(row, "output_norm.weight")));
    return out;
  }

 private:
  using Row = std::vector<double>;
  struct Matrix {
    std::vector<Row> rows;
    Row times(const Row& x) const {
      Row y;
      for (const Row& row : rows) {
        double sum = 0;
        for (size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
        y.push_back(sum);
      }
      return y;
    }
  };

  Matrix matrix(const std::string& name) const {
    const QuantMatrixView view = *file_.matrix(name);
    Matrix m;
    std::vector<float> values(static_cast<size_t>(view.cols));
    for (int64_t r = 0; r < view.rows; ++r) {
      dequantize(view.type, view.row(r), values);
      m.rows.emplace_back(values.begin(), values.end());
    }
    return m;
  }

  // Q, K and V, of three tensors or of one.
  std::array<Matrix, 3> projections(const std::string& block) const {
    if (!file_.has_tensor(block + "attn_qkv.weight"))
      return {matrix(block + "attn_q.weight"), matrix(block + "attn_k.weight"), matrix(block + "attn_v.weight")};
    const Matrix all = matrix(block + "attn_qkv.weight");
    const auto q = all.rows.begin() + config_.shape.num_heads * config_.shape.head_dim;
    const auto k = q + config_.shape.num_kv_heads * config_.shape.head_dim;
    return {Matrix{{all.rows.begin(), q}}, Matrix{{q, k}}, Matrix{{k, all.rows.end()}}};
  }

  Row norm(const Row& x, const std::string& name) const {
    const std::vector<float> gain = *file_.vector(name, config_.shape.model_dim);
    double squares = 0;
    for (double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + config_.layer.norm.epsilon);
    Row y;
    for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * gain[i]);
    return y;
  }

  void rotate(Row& heads, size_t position) const {
    const auto dim = static_cast<size_t>(config_.shape.head_dim);
    for (size_t h = 0; h < heads.size(); h += dim) {
      for (size_t i = 0; i < dim / 2; ++i) {
        const double angle = static_cast<double>(position) * config_.ropes.front().frequencies[i];
        double &a = heads[h + 2 * i], &b = heads[h + 2 * i + 1];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
    }
  }

  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  // One query head over the keys and values of tokens [0, last].
  void attend(const Row& q, size_t head, const std::vector<Row>& keys, const std::vector<Row>& values, size_t last,
              Row& out) const {
    const auto dim = static_cast<size_t>(config_.shape.head_dim);
    const size_t group = static_cast<size_t>(config_.shape.num_heads / config_.shape.num_kv_heads);
    const size_t at = head * dim, kv_at = head / group * dim;
    Row p;
    double sum = 0;
    for (size_t t = 0; t <= last; ++t) {
      double score = 0;
      for (size_t i = 0; i < dim; ++i) score += q[at + i] * keys[t][kv_at + i];
      p.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
      sum += p.back();
    }
    for (size_t t = 0; t <= last; ++t)
      for (size_t i = 0; i < dim; ++i) out[at + i] += p[t] / sum * values[t][kv_at + i];
  }

  void add_layer(int32_t layer, std::vector<Row>& x) const {
    const std::string block = "blk." + std::to_string(layer) + ".";
    const auto [wq, wk, wv] = projections(block);
    const Matrix wo = matrix(block + "attn_output.weight"), gate = matrix(block + "ffn_gate.weight");
    const Matrix up = matrix(block + "ffn_up.weight"), down = matrix(block + "ffn_down.weight");
    std::vector<Row> keys, values;
    for (size_t t = 0; t < x.size(); ++t) {
      const Row normed = norm(x[t], block + "attn_norm.weight");
      Row q = wq.times(normed), k = wk.times(normed);
      rotate(q, t);
      rotate(k, t);
      keys.push_back(k);
      values.push_back(wv.times(normed));
      Row mixed(q.size(), 0.0);
      for (size_t h = 0; h < static_cast<size_t>(config_.shape.num_heads); ++h) attend(q, h, keys, values, t, mixed);
      add(x[t], wo.times(mixed));
      const Row ffn_in = norm(x[t], block + "ffn_norm.weight");
      Row g = gate.times(ffn_in);
      const Row u = up.times(ffn_in);
      for (size_t i = 0; i < g.size(); ++i) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
      add(x[t], down.times(g));
    }
  }

  const Gguf& file_;
  ModelConfig config_;
};

}  // namespace runahead::test
