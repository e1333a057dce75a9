// DecodeBuffers: what a decode step of a GPU reads and writes, in places that stay, so that its kernels can be kept as a graph.
// Steps are of a shape: sequences and pages a sequence, each the next power of two; each shape has a graph. A shape that does not
// fit makes larger buffers, and every graph anew.
//   threads  the engine's lane.
#pragma once

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "model/cuda_transformer/cuda_activations.h"

namespace runahead {

struct DecodeShape {
  int32_t rows = 0;  // sequences
  int32_t pages = 0;  // of each
  auto operator<=>(const DecodeShape&) const = default;
  // Room for so many.
  static DecodeShape of(int32_t rows, int32_t pages);
};

class DecodeBuffers {
 public:
  DecodeBuffers(const cuda::CudaOps& ops, const ModelConfig& config, int32_t padded_dim)
      : ops_(ops), config_(config), padded_dim_(padded_dim) {}
  ~DecodeBuffers() { drop_graphs(); }
  DecodeBuffers(const DecodeBuffers&) = delete;
  DecodeBuffers& operator=(const DecodeBuffers&) = delete;

  // Throws std::bad_alloc, and is empty then.
  void make_room(DecodeShape shape);
  // What rows that stand for nobody read and write: a page of zeros, at first.
  uint16_t* nobodys_page() const { return nobodys_page_.data(); }

  // Runs what `enqueue` asks for, once kept as a graph; as it is where the device takes none.
  template <class Enqueue>
  void run(DecodeShape shape, Enqueue enqueue) {
    auto& graph = graphs_[shape];
    if (!graph && !no_graphs_) {
      ops_.begin_graph();
      enqueue();
      graph = ops_.end_graph();
      no_graphs_ = graph == nullptr;
    }
    if (graph) ops_.run_graph(graph);
    else enqueue();
  }

  std::optional<CudaActivations> x;
  DeviceArray<int32_t> tokens, positions;  // [rows]
  DeviceArray<uint16_t*> keys;  // [layers, rows]
  DeviceArray<const uint16_t*> pages;  // [layers, rows, pages]
  DeviceArray<float> parts;  // as DecodeAttendArgs has them
  DeviceArray<float> logits;  // [rows, vocab]

 private:
  void allocate(DecodeShape shape);
  void drop_graphs();

  const cuda::CudaOps& ops_;
  const ModelConfig& config_;
  int32_t padded_dim_;
  DecodeShape room_;
  DeviceArray<uint16_t> nobodys_page_;
  std::map<DecodeShape, void*> graphs_;  // few: both numbers are powers of two
  bool no_graphs_ = false;
};

}  // namespace runahead
