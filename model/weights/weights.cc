#include "model/weights/weights.h"

#include <malloc.h>

#include <algorithm>
#include <mutex>
#include <string>

#include "base/cache_file.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "model/weights/layer_rows.h"
#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

// Gate rows and up rows alternate by 16, one panel of both.
PackedMatrix pack_gate_up(const WeightRows& gate, const WeightRows& up, const PaddedShape& padded) {
  WeightRows rows;
  for (int32_t r = 0; r < padded.ffn_dim; r += 16) {
    for (const WeightRows* m : {&gate, &up}) {
      const size_t end = rows.size() + 16;
      for (size_t i = static_cast<size_t>(r); i < std::min(static_cast<size_t>(r) + 16, m->size()); ++i)
        rows.push_back((*m)[i]);
      rows.resize(end);
    }
  }
  return PackedMatrix(rows, padded.model_dim);
}

Result<void> pack_layer(const Gguf& file, const ModelConfig& config, int32_t layer, LayerWeights& w) {
  const PaddedShape padded(config.shape);
  const LayerRows rows = TRY(layer_rows(file, config, layer, padded.head_dim));
  w.qkv = PackedMatrix(rows.qkv, padded.model_dim);
  w.attention_out = PackedMatrix(rows.attention_out, padded.heads_dim);
  w.ffn_in = rows.gate.empty() ? PackedMatrix(rows.up, padded.model_dim) : pack_gate_up(rows.gate, rows.up, padded);
  w.down = PackedMatrix(rows.down, padded.ffn_dim);
  return {};
}

Result<NormWeights> load_norm(const Gguf& file, const LayerTensors::Norm& tensors, const ModelShape& s) {
  NormWeights norm;
  const auto padded = static_cast<size_t>(PaddedShape(s).model_dim);
  if (tensors.gain.empty()) return norm;
  norm.gain = TRY(file.vector(tensors.gain, s.model_dim));
  norm.gain.resize(padded);
  if (tensors.bias.empty()) return norm;
  norm.bias = TRY(file.vector(tensors.bias, s.model_dim));
  norm.bias.resize(padded);
  return norm;
}

Result<LayerVectors> load_vectors(const Gguf& file, const ModelConfig& config, int32_t layer) {
  const PaddedShape padded(config.shape);
  LayerVectors vectors = TRY(layer_vectors(file, config, layer, padded.head_dim));
  const auto pad = [](std::vector<float>& values, int32_t size) {
    if (!values.empty()) values.resize(static_cast<size_t>(size));
  };
  pad(vectors.attention_out_bias, padded.model_dim);
  pad(vectors.down_bias, padded.model_dim);
  pad(vectors.up_bias, padded.ffn_dim);
  return vectors;
}

// What is used as it lies in the file.
Result<Weights> load_unpacked(const Gguf& file, const ModelConfig& config) {
  const ModelShape& s = config.shape;
  Weights weights;
  weights.embedding = TRY(embedding_matrix(file, s));
  weights.output_norm = TRY(load_norm(file, output_norm_tensors(file), s));
  for (int32_t layer = 0; layer < s.num_layers; ++layer) {
    const LayerTensors tensors(file, config.layer, layer);
    LayerWeights& w = weights.layers.emplace_back();
    w.attention_norm = TRY(load_norm(file, tensors.attention_norm, s));
    w.attention_post_norm = TRY(load_norm(file, tensors.attention_post_norm, s));
    w.ffn_norm = TRY(load_norm(file, tensors.ffn_norm, s));
    w.ffn_post_norm = TRY(load_norm(file, tensors.ffn_post_norm, s));
    w.vectors = TRY(load_vectors(file, config, layer));
  }
  return weights;
}

// The order of the cache file; shapes_of says the same of the shapes.
std::vector<PackedMatrix*> packed_matrices(Weights& weights) {
  std::vector<PackedMatrix*> all = {&weights.head};
  for (LayerWeights& w : weights.layers) all.insert(all.end(), {&w.qkv, &w.attention_out, &w.ffn_in, &w.down});
  return all;
}

std::vector<PackedShape> shapes_of(const ModelConfig& config) {
  const ModelShape& s = config.shape;
  const PaddedShape padded(s);
  const int64_t ffn_in = config.layer.ffn == FfnKind::kGelu ? s.ffn_dim : 2 * int64_t{padded.ffn_dim};
  std::vector<PackedShape> shapes = {{s.vocab_size, padded.model_dim}};
  for (int32_t layer = 0; layer < s.num_layers; ++layer)
    shapes.insert(shapes.end(), {{padded.qkv_dim, padded.model_dim},
                                 {s.model_dim, padded.heads_dim},
                                 {ffn_in, padded.model_dim},
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
  return w.qkv.bytes() + w.attention_out.bytes() + w.ffn_in.bytes() + w.down.bytes();
}

Result<void> pack_all(const Gguf& file, const ModelConfig& config, ThreadTeam& team, const LoadProgress& progress,
                      Weights& weights) {
  const ModelShape& s = config.shape;
  const QuantMatrixView head = TRY(head_matrix(file, config));
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
      weights.head = PackedMatrix(rows_of(head), PaddedShape(s).model_dim);
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
                log::Level level, Weights& weights) {
  Result<PackedFile> found = cache.open(shapes_of(config), team);
  if (!found) {
    if (found.error().code != ErrorCode::kNotFound)
      log::line(level, "the packed weights in {} are not used, and packed anew: {}", cache.path().string(),
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
    map_cached(cache, config, team, WeightsOrigin::kWritten, log::Level::kWarn, weights);
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
  if (map_cached(*cache, config, team, WeightsOrigin::kMapped, log::Level::kDebug, weights)) return weights;
  const Result<FileLock> lock = cache->lock();
  if (!lock)
    log::warn("the packed weights stay in memory, and the next start packs them again: {}", lock.error().message);
  // Whoever held the lock before us may have written what we want.
  if (lock && map_cached(*cache, config, team, WeightsOrigin::kMapped, log::Level::kWarn, weights)) return weights;
  TRY(pack_all(file, config, team, progress, weights));
  if (lock) write_cache(*cache, config, team, weights);
  return weights;
}

}  // namespace runahead
