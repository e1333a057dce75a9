#include "model/weights.h"

#include <mutex>
#include <string>

#include "kernels/ops.h"

namespace runahead {
namespace {

// The row that rotate-half RoPE wants at place `i` of a head, where the file has pairs side by side.
int64_t source_row(RopePairing pairing, int64_t head_dim, int64_t i) {
  if (pairing == RopePairing::kHalves) return i;
  const int64_t head = i / head_dim, place = i % head_dim, half = head_dim / 2;
  return head * head_dim + (place < half ? 2 * place : 2 * (place - half) + 1);
}

void append_rows(const QuantMatrixView& m, std::vector<RowSource>& rows) {
  for (int64_t r = 0; r < m.rows; ++r) rows.push_back({m.type, m.row(r)});
}

void append_rotary_rows(const QuantMatrixView& m, RopePairing pairing, int64_t head_dim, std::vector<RowSource>& rows) {
  for (int64_t r = 0; r < m.rows; ++r) rows.push_back({m.type, m.row(source_row(pairing, head_dim, r))});
}

PackedMatrix pack(const QuantMatrixView& m) {
  std::vector<RowSource> rows;
  append_rows(m, rows);
  return PackedMatrix(rows, static_cast<int32_t>(m.cols));
}

PackedMatrix pack_gate_up(const QuantMatrixView& gate, const QuantMatrixView& up) {
  std::vector<RowSource> rows;
  for (int64_t r = 0; r < gate.rows; r += 16) {
    for (int64_t i = r; i < r + 16; ++i) rows.push_back({gate.type, gate.row(i)});
    for (int64_t i = r; i < r + 16; ++i) rows.push_back({up.type, up.row(i)});
  }
  return PackedMatrix(rows, static_cast<int32_t>(gate.cols));
}

Result<QuantMatrixView> matrix(const Gguf& file, const std::string& name, int64_t rows, int64_t cols) {
  const QuantMatrixView m = TRY(file.matrix(name));
  if (m.rows != rows || m.cols != cols)
    return fail(ErrorCode::kInvalidModel, "tensor " + name + " is [" + std::to_string(m.rows) + ", " +
                                              std::to_string(m.cols) + "], but the model needs [" +
                                              std::to_string(rows) + ", " + std::to_string(cols) + "]");
  return m;
}

Result<LayerWeights> load_layer(const Gguf& file, const ModelConfig& config, int32_t layer) {
  const ModelShape& s = config.shape;
  const std::string block = "blk." + std::to_string(layer) + ".";
  const int64_t dim = s.model_dim, q_dim = int64_t{s.num_heads} * s.head_dim,
                kv_dim = int64_t{s.num_kv_heads} * s.head_dim;
  LayerWeights w;
  w.attention_norm = TRY(file.vector(block + "attn_norm.weight", dim));
  w.ffn_norm = TRY(file.vector(block + "ffn_norm.weight", dim));
  const QuantMatrixView q = TRY(matrix(file, block + "attn_q.weight", q_dim, dim));
  const QuantMatrixView k = TRY(matrix(file, block + "attn_k.weight", kv_dim, dim));
  const QuantMatrixView v = TRY(matrix(file, block + "attn_v.weight", kv_dim, dim));
  std::vector<RowSource> rows;
  append_rotary_rows(q, config.rope.pairing, s.head_dim, rows);
  append_rotary_rows(k, config.rope.pairing, s.head_dim, rows);
  append_rows(v, rows);
  w.qkv = PackedMatrix(rows, s.model_dim);
  w.attention_out = pack(TRY(matrix(file, block + "attn_output.weight", dim, q_dim)));
  const QuantMatrixView gate = TRY(matrix(file, block + "ffn_gate.weight", s.ffn_dim, dim));
  const QuantMatrixView up = TRY(matrix(file, block + "ffn_up.weight", s.ffn_dim, dim));
  w.gate_up = pack_gate_up(gate, up);
  w.down = pack(TRY(matrix(file, block + "ffn_down.weight", dim, s.ffn_dim)));
  return w;
}

Result<void> check_shape(const ModelShape& s) {
  const std::pair<const char*, int32_t> dims[] = {
      {"embedding_length", s.model_dim}, {"feed_forward_length", s.ffn_dim}, {"the attention head size", s.head_dim}};
  for (const auto& [what, value] : dims)
    if (value <= 0 || value % kPanelBlock != 0)
      return fail(ErrorCode::kUnsupported,
                  std::string(what) + " is " + std::to_string(value) + "; this build runs multiples of 32");
  if (s.head_dim > kHeadDimMax)
    return fail(ErrorCode::kUnsupported,
                "an attention head of " + std::to_string(s.head_dim) + " is over " + std::to_string(kHeadDimMax));
  if (s.num_kv_heads <= 0 || s.num_heads % s.num_kv_heads != 0)
    return fail(ErrorCode::kInvalidModel, "the number of attention heads is no multiple of the number of KV heads");
  return {};
}

size_t layer_bytes(const LayerWeights& w) {
  return w.qkv.bytes() + w.attention_out.bytes() + w.gate_up.bytes() + w.down.bytes();
}

}  // namespace

size_t Weights::packed_bytes() const {
  size_t bytes = head.bytes();
  for (const LayerWeights& layer : layers) bytes += layer_bytes(layer);
  return bytes;
}

Result<Weights> load_weights(const Gguf& file, const ModelConfig& config, ThreadTeam& team,
                             const LoadProgress& progress) {
  const ModelShape& s = config.shape;
  TRY(check_shape(s));
  Weights weights;
  weights.embedding = TRY(matrix(file, "token_embd.weight", s.vocab_size, s.model_dim));
  weights.output_norm = TRY(file.vector("output_norm.weight", s.model_dim));
  const QuantMatrixView head =
      config.tied_head ? weights.embedding : TRY(matrix(file, "output.weight", s.vocab_size, s.model_dim));
  weights.layers.resize(static_cast<size_t>(s.num_layers));

  std::mutex mutex;  // guards what follows
  Result<void> outcome;
  const uint64_t head_share = head.row_bytes() * static_cast<uint64_t>(head.rows), total = file.file_bytes();
  const uint64_t layer_share = total > head_share ? (total - head_share) / static_cast<uint64_t>(s.num_layers) : 0;
  uint64_t done = 0;
  const auto finished = [&](uint64_t bytes) {
    done += bytes;
    if (progress) progress(done < total ? done : total, total);
  };
  team.run(s.num_layers + 1, [&](int32_t part, int32_t) {
    if (part == 0) {  // the head is the largest piece, so it comes first
      weights.head = pack(head);
      const std::lock_guard lock(mutex);
      return finished(head_share);
    }
    Result<LayerWeights> layer = load_layer(file, config, part - 1);
    const std::lock_guard lock(mutex);
    if (!layer) {
      outcome = std::unexpected(std::move(layer).error());
      return;
    }
    weights.layers[static_cast<size_t>(part - 1)] = std::move(*layer);
    finished(layer_share);
  });
  TRY(outcome);
  if (progress) progress(total, total);
  return weights;
}

}  // namespace runahead
