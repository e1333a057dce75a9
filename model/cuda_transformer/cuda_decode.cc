// A decode step of a GPU: everything that differs from step to step is uploaded first, then the kernels run, as a graph.
#include <algorithm>
#include <vector>

#include "model/cuda_transformer/cuda_transformer.h"

namespace runahead {

void CudaTransformer::decode(std::span<const DecodeRow> batch, std::span<float> out) {
  const auto vocab = static_cast<size_t>(shape().vocab_size);
  RUNAHEAD_CHECK(!batch.empty() && out.size() == batch.size() * vocab, "logits have a row a sequence");
  int32_t pages = 0;
  for (const DecodeRow& row : batch) pages = std::max(pages, row.position / kPageTokens + 1);
  const DecodeShape step = DecodeShape::of(static_cast<int32_t>(batch.size()), pages);
  decode_->make_room(step);
  upload_step(batch, step);
  decode_->run(step, [&] { enqueue_step(step); });
  ops_.to_host(out.data(), decode_->logits.data(), out.size_bytes());
  check_device();
}

// Rows behind the batch's stand for nobody: one token each, on a page of nobody's.
void CudaTransformer::upload_step(std::span<const DecodeRow> batch, DecodeShape step) {
  const auto rows = static_cast<size_t>(step.rows), pages = static_cast<size_t>(step.pages);
  std::vector<int32_t> tokens(rows), positions(rows);
  std::vector<CudaActivations::Place> places(rows, {nullptr, 0});
  for (size_t r = 0; r < batch.size(); ++r) {
    RUNAHEAD_CHECK(batch[r].token >= 0 && batch[r].token < shape().vocab_size, "a token is outside the vocabulary");
    tokens[r] = batch[r].token, positions[r] = batch[r].position, places[r] = {batch[r].kv, batch[r].position};
  }
  const auto layers = static_cast<size_t>(shape().num_layers);
  std::vector<uint16_t*> keys(layers * rows, decode_->nobodys_page());
  std::vector<const uint16_t*> table(layers * rows * pages, decode_->nobodys_page());
  for (int32_t layer = 0; layer < shape().num_layers; ++layer)
    for (size_t r = 0; r < batch.size(); ++r) {
      const auto& [kv, position] = places[r];
      const size_t row = static_cast<size_t>(layer) * rows + r;
      if (position % kPageTokens == 0) clear_page(*kv, layer, position / kPageTokens);
      keys[row] = key_of(layer, places[r]);
      for (int32_t p = 0; p <= position / kPageTokens; ++p)
        table[row * pages + static_cast<size_t>(p)] = page_to_read(*kv, layer, p);
    }
  decode_->tokens.fill(tokens);
  decode_->positions.fill(positions);
  decode_->keys.fill(keys);
  decode_->pages.fill(table);
  decode_->x->place(std::move(places));
}

void CudaTransformer::enqueue_step(DecodeShape step) {
  CudaActivations& x = *decode_->x;
  const auto rows = static_cast<size_t>(step.rows);
  embed_rows(decode_->tokens.data(), x);
  for (int32_t layer = 0; layer < shape().num_layers; ++layer) {
    const size_t row = static_cast<size_t>(layer) * rows;
    project(layer, x, {0, step.rows}, decode_->keys.at(row));
    ops_.decode_attend({.queries = x.queries.data(),
                        .pages = decode_->pages.at(row * static_cast<size_t>(step.pages)),
                        .positions = decode_->positions.data(),
                        .value_offset = value_offset(),
                        .rows = step.rows,
                        .pages_stride = step.pages,
                        .heads = shape().num_heads,
                        .kv_heads = shape().num_kv_heads,
                        .padded_dim = padded_dim_,
                        .parts = decode_->parts.data(),
                        .sums = x.sums.data(),
                        .state = x.state.data()});
    finish_layer(layer, x, {0, step.rows});
  }
  multiply_by_head(x, {0, step.rows}, decode_->logits.data());
}

}  // namespace runahead
