#include "model/cuda_transformer/decode_buffers.h"

#include <algorithm>
#include <bit>

namespace runahead {
namespace {

int32_t next_power_of_two(int32_t count) { return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(count))); }

}  // namespace

DecodeShape DecodeShape::of(int32_t rows, int32_t pages) {
  return {next_power_of_two(rows), std::max(cuda::kPagesPerPart, next_power_of_two(pages))};
}

void DecodeBuffers::drop_graphs() {
  for (const auto& [shape, graph] : graphs_)
    if (graph != nullptr) ops_.free_graph(graph);
  graphs_.clear();
}

void DecodeBuffers::make_room(DecodeShape shape) {
  if (shape.rows <= room_.rows && shape.pages <= room_.pages) return;
  const DecodeShape more{std::max(shape.rows, room_.rows), std::max(shape.pages, room_.pages)};
  drop_graphs();
  room_ = {};
  x.reset();
  tokens = {};
  positions = {};
  keys = {};
  pages = {};
  parts = {};
  logits = {};
  allocate(more);
  room_ = more;
}

void DecodeBuffers::allocate(DecodeShape shape) {
  const ModelShape& s = config_.shape;
  const auto rows = static_cast<size_t>(shape.rows), layers = static_cast<size_t>(s.num_layers);
  x.emplace(ops_, config_, padded_dim_, shape.rows);
  x->set_decodes();
  tokens = need_device_array<int32_t>(ops_, rows);
  positions = need_device_array<int32_t>(ops_, rows);
  keys = need_device_array<uint16_t*>(ops_, layers * rows);
  pages = need_device_array<const uint16_t*>(ops_, layers * rows * static_cast<size_t>(shape.pages));
  parts = need_device_array<float>(ops_, rows * static_cast<size_t>(s.num_heads * cuda::decode_parts(shape.pages)) *
                                             static_cast<size_t>(padded_dim_ + 2));
  logits = need_device_array<float>(ops_, rows * static_cast<size_t>(s.vocab_size));
  nobodys_page_ =
      need_device_array<uint16_t>(ops_, 2 * static_cast<size_t>(s.num_kv_heads * kPageTokens * padded_dim_));
  nobodys_page_.clear();
}

}  // namespace runahead
