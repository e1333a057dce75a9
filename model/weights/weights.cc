#include "model/weights/weights.h"

#include <malloc.h>

#include <algorithm>
#include <mutex>
#include <string>

#include "base/cache_file.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

// Appends the rows that the kernels see; what the file does not have is zero.
class RowList {
 public:
  void add(const QuantMatrixView& m, int64_t row) { rows_.push_back({m.type, m.row(row)}); }
  void pad_to(int64_t rows) { rows_.resize(static_cast<size_t>(rows)); }
  PackedMatrix pack(int32_t k) const { return PackedMatrix(rows_, k); }
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }

 private:
  std::vector<RowSource> rows_;
};

PackedMatrix pack(const QuantMatrixView& m, int32_t k) {
  RowList rows;
  for (int64_t r = 0; r < m.rows; ++r) rows.add(m, r);
  return rows.pack(k);
}

// Heads of Q or K. The two halves of a head are what rotate-half RoPE turns: place i of each is pair i.
void add_rotary_heads(const QuantMatrixView& m, RopePairing pairing, int64_t head_dim, int64_t padded, RowList& rows) {
  const bool interleaved = pairing == RopePairing::kInterleaved;
  const int64_t half = head_dim / 2, step = interleaved ? 2 : 1, second = interleaved ? 1 : half;
  for (int64_t head = 0; head < m.rows; head += head_dim) {
    const int64_t begin = rows.size();
    for (int64_t i = 0; i < half; ++i) rows.add(m, head + step * i);
    rows.pad_to(begin + padded / 2);
    for (int64_t i = 0; i < half; ++i) rows.add(m, head + step * i + second);
    rows.pad_to(begin + padded);
  }
}

void add_heads(const QuantMatrixView& m, int64_t head_dim, int64_t padded, RowList& rows) {
  for (int64_t head = 0; head < m.rows; head += head_dim) {
    const int64_t begin = rows.size();
    for (int64_t i = 0; i < head_dim; ++i) rows.add(m, head + i);
    rows.pad_to(begin + padded);
  }
}

PackedMatrix pack_gate_up(const QuantMatrixView& gate, const QuantMatrixView& up, const PaddedShape& padded) {
  RowList rows;
  for (int64_t r = 0; r < padded.ffn_dim; r += 16) {
    for (const QuantMatrixView* m : {&gate, &up}) {
      const int64_t end = rows.size() + 16;
      for (int64_t i = r; i < std::min(r + 16, m->rows); ++i) rows.add(*m, i);
      rows.pad_to(end);
    }
  }
  return rows.pack(padded.model_dim);
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

Result<void> pack_attention(const Gguf& file, const ModelConfig& config, const LayerTensors& tensors, LayerWeights& w) {
  const ModelShape& s = config.shape;
  const PaddedShape padded(s);
  const RopePairing pairing = config.layer.rope.pairing;
  const QkvViews qkv = TRY(qkv_views(file, s, tensors));
  RowList rows;
  add_rotary_heads(qkv.q, pairing, s.head_dim, padded.head_dim, rows);
  add_rotary_heads(qkv.k, pairing, s.head_dim, padded.head_dim, rows);
  add_heads(qkv.v, s.head_dim, padded.head_dim, rows);
  w.qkv = rows.pack(padded.model_dim);
  const int64_t heads_dim = int64_t{s.num_heads} * s.head_dim;
  w.attention_out = pack(TRY(finite_matrix(file, tensors.attention_out, s.model_dim, heads_dim)), padded.heads_dim);
  return {};
}

Result<void> pack_ffn(const Gguf& file, const ModelConfig& config, const LayerTensors& tensors, LayerWeights& w) {
  const ModelShape& s = config.shape;
  const PaddedShape padded(s);
  switch (config.layer.ffn) {
    case FfnKind::kSiluGated: {
      const QuantMatrixView gate = TRY(finite_matrix(file, tensors.gate, s.ffn_dim, s.model_dim));
      const QuantMatrixView up = TRY(finite_matrix(file, tensors.up, s.ffn_dim, s.model_dim));
      w.gate_up = pack_gate_up(gate, up, padded);
      break;
    }
  }
  w.down = pack(TRY(finite_matrix(file, tensors.down, s.model_dim, s.ffn_dim)), padded.ffn_dim);
  return {};
}

Result<void> pack_layer(const Gguf& file, const ModelConfig& config, int32_t layer, LayerWeights& w) {
  const LayerTensors tensors(file, layer);
  TRY(pack_attention(file, config, tensors, w));
  return pack_ffn(file, config, tensors, w);
}

// The gain of a norm.
Result<std::vector<float>> norm(const Gguf& file, const std::string& name, const ModelShape& s) {
  std::vector<float> gain = TRY(file.vector(name, s.model_dim));
  gain.resize(static_cast<size_t>(PaddedShape(s).model_dim));
  return gain;
}

// What is used as it lies in the file.
Result<Weights> load_unpacked(const Gguf& file, const ModelConfig& config) {
  const ModelShape& s = config.shape;
  Weights weights;
  weights.embedding = TRY(matrix(file, "token_embd.weight", s.vocab_size, s.model_dim));
  weights.output_norm = TRY(norm(file, "output_norm.weight", s));
  for (int32_t layer = 0; layer < s.num_layers; ++layer) {
    const LayerTensors tensors(file, layer);
    LayerWeights& w = weights.layers.emplace_back();
    w.attention_norm = TRY(norm(file, tensors.attention_norm, s));
    w.ffn_norm = TRY(norm(file, tensors.ffn_norm, s));
  }
  return weights;
}

// The order of the cache file; shapes_of says the same of the shapes.
std::vector<PackedMatrix*> packed_matrices(Weights& weights) {
  std::vector<PackedMatrix*> all = {&weights.head};
  for (LayerWeights& w : weights.layers) all.insert(all.end(), {&w.qkv, &w.attention_out, &w.gate_up, &w.down});
  return all;
}

std::vector<PackedShape> shapes_of(const ModelShape& s) {
  const PaddedShape padded(s);
  std::vector<PackedShape> shapes = {{s.vocab_size, padded.model_dim}};
  for (int32_t layer = 0; layer < s.num_layers; ++layer)
    shapes.insert(shapes.end(), {{padded.qkv_dim, padded.model_dim},
                                 {s.model_dim, padded.heads_dim},
                                 {2 * int64_t{padded.ffn_dim}, padded.model_dim},
                                 {s.model_dim, padded.ffn_dim}});
  return shapes;
}

Result<void> check_shape(const ModelShape& s) {
  if (s.head_dim > kHeadDimMax)
    return fail(ErrorCode::kUnsupported, "an attention head of " + std::to_string(s.head_dim) + " is over " +
                                             std::to_string(kHeadDimMax) +
                                             ", which this version does not run; choose another model");
  return {};
}

size_t layer_bytes(const LayerWeights& w) {
  return w.qkv.bytes() + w.attention_out.bytes() + w.gate_up.bytes() + w.down.bytes();
}

Result<void> pack_all(const Gguf& file, const ModelConfig& config, ThreadTeam& team, const LoadProgress& progress,
                      Weights& weights) {
  const ModelShape& s = config.shape;
  QuantMatrixView head = TRY(finite_matrix(file, "token_embd.weight", s.vocab_size, s.model_dim));
  if (!config.tied_head) head = TRY(finite_matrix(file, "output.weight", s.vocab_size, s.model_dim));
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
      weights.head = pack(head, PaddedShape(s).model_dim);
      const std::lock_guard lock(mutex);
      return finished(head_share);
    }
    Result<void> layer = pack_layer(file, config, part - 1, weights.layers[static_cast<size_t>(part - 1)]);
    const std::lock_guard lock(mutex);
    if (!layer) {
      outcome = std::move(layer);
      return;
    }
    finished(layer_share);
  });
  TRY(outcome);
  if (progress) progress(total, total);
  return {};
}

// True if the weights now point into the cache's file. `level`: of the line about a file that is refused.
bool map_cached(const PackedCache& cache, const ModelConfig& config, ThreadTeam& team, WeightsOrigin origin,
                log::level::level_enum level, Weights& weights) {
  Result<PackedFile> found = cache.open(shapes_of(config.shape), team);
  if (!found) {
    if (found.error().code != ErrorCode::kNotFound)
      log::log(level, "the packed weights in {} are not used, and packed anew: {}", cache.path().string(),
               found.error().message);
    return false;
  }
  const std::vector<PackedMatrix*> places = packed_matrices(weights);
  for (size_t i = 0; i < places.size(); ++i) *places[i] = std::move(found->matrices[i]);
  weights.cache = std::move(found->file);
  weights.origin = origin;
  return true;
}

// Writes the packed weights and exchanges them for the mapped file, which the other workers share.
void write_cache(const PackedCache& cache, const ModelConfig& config, ThreadTeam& team, Weights& weights) {
  const std::vector<PackedMatrix*> matrices = packed_matrices(weights);
  const Result<void> written = cache.write(std::vector<const PackedMatrix*>(matrices.begin(), matrices.end()));
  if (written) {
    map_cached(cache, config, team, WeightsOrigin::kWritten, log::level::warn, weights);
    malloc_trim(0);  // else the allocator keeps the private copies of small matrices: 64 of 98 MB of the default model
  } else {
    log::warn("the packed weights stay in memory, and the next start packs them again: {}", written.error().message);
  }
}

}  // namespace

size_t Weights::packed_bytes() const {
  size_t bytes = head.bytes();
  for (const LayerWeights& layer : layers) bytes += layer_bytes(layer);
  return bytes;
}

Result<Weights> load_weights(const Gguf& file, const ModelConfig& config, ThreadTeam& team,
                             const LoadProgress& progress, const PackedCache* cache) {
  TRY(check_shape(config.shape));
  Weights weights = TRY(load_unpacked(file, config));
  if (cache == nullptr) {
    TRY(pack_all(file, config, team, progress, weights));
    return weights;
  }
  if (map_cached(*cache, config, team, WeightsOrigin::kMapped, log::level::debug, weights)) return weights;
  const Result<FileLock> lock = cache->lock();
  if (!lock)
    log::warn("the packed weights stay in memory, and the next start packs them again: {}", lock.error().message);
  // Whoever held the lock before us may have written what we want.
  if (lock && map_cached(*cache, config, team, WeightsOrigin::kMapped, log::level::warn, weights)) return weights;
  TRY(pack_all(file, config, team, progress, weights));
  if (lock) write_cache(*cache, config, team, weights);
  return weights;
}

}  // namespace runahead
