#include "model/weights.h"

#include <malloc.h>

#include <mutex>
#include <string>

#include "base/cache_file.h"
#include "base/log.h"
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

std::string block_name(int32_t layer) { return "blk." + std::to_string(layer) + "."; }

Result<void> pack_layer(const Gguf& file, const ModelConfig& config, int32_t layer, LayerWeights& w) {
  const ModelShape& s = config.shape;
  const std::string block = block_name(layer);
  const int64_t dim = s.model_dim, q_dim = int64_t{s.num_heads} * s.head_dim,
                kv_dim = int64_t{s.num_kv_heads} * s.head_dim;
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
  return {};
}

// What is used as it lies in the file.
Result<Weights> load_unpacked(const Gguf& file, const ModelConfig& config) {
  const ModelShape& s = config.shape;
  Weights weights;
  weights.embedding = TRY(matrix(file, "token_embd.weight", s.vocab_size, s.model_dim));
  weights.output_norm = TRY(file.vector("output_norm.weight", s.model_dim));
  for (int32_t layer = 0; layer < s.num_layers; ++layer) {
    LayerWeights& w = weights.layers.emplace_back();
    w.attention_norm = TRY(file.vector(block_name(layer) + "attn_norm.weight", s.model_dim));
    w.ffn_norm = TRY(file.vector(block_name(layer) + "ffn_norm.weight", s.model_dim));
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
  const int64_t q_dim = int64_t{s.num_heads} * s.head_dim, kv_dim = int64_t{s.num_kv_heads} * s.head_dim;
  std::vector<PackedShape> shapes = {{s.vocab_size, s.model_dim}};
  for (int32_t layer = 0; layer < s.num_layers; ++layer)
    shapes.insert(shapes.end(), {{q_dim + 2 * kv_dim, s.model_dim},
                                 {s.model_dim, static_cast<int32_t>(q_dim)},
                                 {2 * int64_t{s.ffn_dim}, s.model_dim},
                                 {s.model_dim, s.ffn_dim}});
  return shapes;
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

Result<void> pack_all(const Gguf& file, const ModelConfig& config, ThreadTeam& team, const LoadProgress& progress,
                      Weights& weights) {
  const ModelShape& s = config.shape;
  const QuantMatrixView head =
      config.tied_head ? weights.embedding : TRY(matrix(file, "output.weight", s.vocab_size, s.model_dim));
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
