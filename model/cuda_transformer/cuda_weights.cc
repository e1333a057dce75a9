#include "model/cuda_transformer/cuda_weights.h"

#include <string>

#include "model/weights/layer_tensors.h"

namespace runahead {
namespace {

Error no_room(size_t bytes) {
  return {ErrorCode::kOverloaded,
          "the device has no room for a part of the model (" + std::to_string(bytes >> 20) +
              " MiB); free its memory, or choose a smaller model",
          {}};
}

class Loader {
 public:
  Loader(const cuda::CudaOps& ops, const Gguf& file, const ModelConfig& config)
      : ops_(ops), file_(file), config_(config) {}

  Result<CudaWeights> load(const LoadProgress& progress) {
    const ModelShape& s = config_.shape;
    const uint64_t total = file_.file_bytes(), steps = static_cast<uint64_t>(s.num_layers) + 1;
    CudaWeights w;
    w.embedding = TRY(embedding_matrix(file_, s));
    w.embedding_bytes = TRY(upload<uint8_t>(w.embedding.row_bytes() * static_cast<size_t>(w.embedding.rows),
                                            reinterpret_cast<const uint8_t*>(w.embedding.data)));
    w.output_norm = TRY(norm("output_norm.weight"));
    w.head = TRY(matrix(rows_of(TRY(head_matrix(file_, config_))), s.model_dim));
    if (progress) progress(total / steps, total);
    for (int32_t layer = 0; layer < s.num_layers; ++layer) {
      w.layers.push_back(TRY(load_layer(layer)));
      if (progress) progress(total * (static_cast<uint64_t>(layer) + 2) / steps, total);
    }
    return w;
  }

 private:
  Result<CudaLayer> load_layer(int32_t index) {
    const ModelShape& s = config_.shape;
    const LayerTensors tensors(file_, config_.layer, index);
    const LayerRows rows = TRY(layer_rows(file_, config_, index, s.head_dim));
    WeightRows gate_up;
    for (size_t r = 0; r < rows.gate.size(); ++r) gate_up.insert(gate_up.end(), {rows.gate[r], rows.up[r]});
    CudaLayer layer;
    layer.attention_norm = TRY(norm(tensors.attention_norm.gain));
    layer.ffn_norm = TRY(norm(tensors.ffn_norm.gain));
    layer.qkv = TRY(matrix(rows.qkv, s.model_dim));
    layer.attention_out = TRY(matrix(rows.attention_out, s.num_heads * s.head_dim));
    layer.gate_up = TRY(matrix(gate_up, s.model_dim));
    layer.down = TRY(matrix(rows.down, s.ffn_dim));
    return layer;
  }

  template <class T>
  Result<DeviceArray<T>> allocate(size_t size) {
    DeviceArray<T> array(ops_, size);
    if (array.is_empty()) return std::unexpected(no_room(size * sizeof(T)));
    return array;
  }
  template <class T>
  Result<DeviceArray<T>> upload(size_t size, const T* values) {
    DeviceArray<T> array = TRY(allocate<T>(size));
    array.fill({values, size});
    return array;
  }
  Result<DeviceArray<float>> norm(const std::string& name) {
    const std::vector<float> gain = TRY(file_.vector(name, config_.shape.model_dim));
    return upload<float>(gain.size(), gain.data());
  }

  // Runs of rows of one format are uploaded and dequantised together.
  Result<CudaMatrix> matrix(const WeightRows& rows, int32_t cols) {
    CudaMatrix m{.n = static_cast<int32_t>(rows.size()), .k = cuda_depth(cols)};
    m.rows = TRY(allocate<uint16_t>(rows.size() * static_cast<size_t>(m.k)));
    for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
      while (end < rows.size() && rows[end].type == rows[begin].type) ++end;
      TRY(dequantize_run(std::span(rows).subspan(begin, end - begin), cols,
                         m.rows.data() + begin * static_cast<size_t>(m.k), m.k));
    }
    return m;
  }

  Result<void> dequantize_run(std::span<const RowSource> rows, int32_t cols, uint16_t* out, int32_t out_stride) {
    const QuantFormat& format = quant_format(rows.front().type);
    std::vector<uint8_t> bytes;
    for (const RowSource& row : rows) {
      const auto* blocks = reinterpret_cast<const uint8_t*>(row.blocks.data());
      bytes.insert(bytes.end(), blocks, blocks + row.blocks.size());
    }
    const DeviceArray<uint8_t> blocks = TRY(upload<uint8_t>(bytes.size(), bytes.data()));
    ops_.dequantize({.type = static_cast<uint32_t>(rows.front().type),
                     .blocks = blocks.data(),
                     .rows = static_cast<int64_t>(rows.size()),
                     .cols = cols,
                     .block_bytes = format.block_bytes,
                     .block_len = format.block_len,
                     .out = out,
                     .out_stride = out_stride});
    ops_.finish();  // the blocks are freed
    return {};
  }

  const cuda::CudaOps& ops_;
  const Gguf& file_;
  const ModelConfig& config_;
};

}  // namespace

Result<CudaWeights> load_cuda_weights(const cuda::CudaOps& ops, const Gguf& file, const ModelConfig& config,
                                      const LoadProgress& progress) {
  return Loader(ops, file, config).load(progress);
}

}  // namespace runahead
