#include "model/lease_shape.h"

namespace runahead {
namespace {

// Pages that the window of a token touches, wherever in its page the token is.
constexpr int32_t pages_of_window(int32_t window) { return (window + kPageTokens - 2) / kPageTokens + 1; }

}  // namespace

int64_t LeaseShape::own_pages() const {
  int64_t sum = 0, most = 0;
  for (int32_t layer = 0; layer < num_layers(); ++layer) {
    const auto own = [this](int32_t l) {
      return layers[static_cast<size_t>(l)].end - layers[static_cast<size_t>(l)].first;
    };
    sum += own(layer) - (layer >= layers_at_once ? own(layer - layers_at_once) : 0);
    most = std::max(most, sum);
  }
  return most;
}

bool LeaseShape::has_turned(int32_t page) const {
  return std::ranges::any_of(layers, [&](const LayerPages& layer) { return layer.turn > 0 && page >= layer.end; });
}

int32_t LeaseShape::layers_with(int32_t page, int32_t kept) const {
  return static_cast<int32_t>(std::ranges::count_if(layers, [&](const LayerPages& layer) {
    const bool stays = layer.turn == 0 || page < layer.end - layer.turn || page > kept - layer.turn;
    return page >= layer.first && stays;
  }));
}

LeaseShape whole_lease(int32_t num_layers, int32_t tokens, int32_t shared) {
  return {.num_pages = pages_for(tokens),
          .shared = shared,
          .layers_at_once = num_layers,
          .layers = std::vector(static_cast<size_t>(num_layers), LayerPages{shared, pages_for(tokens)})};
}

LeaseShape rank_lease(const ModelShape& model, TokenRange chunk, int32_t shared, bool is_last_rank) {
  LeaseShape lease = whole_lease(model.num_layers, chunk.end, shared);
  lease.layers_at_once = kv_layers_at_once(model.num_layers, is_last_rank);
  for (int32_t layer = 0; layer < model.num_layers; ++layer)
    lease.layers[static_cast<size_t>(layer)].first =
        std::max(shared, first_page_in_reach(chunk.begin, model.window(layer)));
  return lease;
}

LeaseShape sequence_lease(const ModelShape& model, int32_t prompt_len, int32_t tokens, int32_t shared,
                          bool keeps_prompt) {
  LeaseShape lease = whole_lease(model.num_layers, tokens, shared);
  const int32_t full = prompt_len / kPageTokens, stay = keeps_prompt ? full : shared;  // pages of each layer
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    const int32_t window = model.window(layer);
    LayerPages& pages = lease.layers[static_cast<size_t>(layer)];
    pages.first = std::max(shared, first_page_in_reach(full * kPageTokens, window));
    const int32_t turned = std::max(stay, pages.first) + pages_of_window(window);
    if (window > 0 && turned < pages.end) pages.end = turned, pages.turn = pages_of_window(window);
  }
  return lease;
}

}  // namespace runahead
