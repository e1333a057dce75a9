// A layer with experts: a router gives each row to a few FFNs, whose outputs are mixed. The rows of a block are sorted by
// expert, so that each expert's weights are read once a block; a row adds its experts in the order of their numbers,
// whatever its mates.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/transformer/activations.h"
#include "model/transformer/transformer.h"

namespace runahead {
namespace {

struct Choice {
  int32_t expert = 0;
  float weight = 0;
};

// The most likely ones, each with its part of a softmax over them; of equals the first.
std::vector<Choice> choose(std::span<const float> scores, int32_t count) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::partial_sort(order, order.begin() + count, [&](int32_t a, int32_t b) {
    const float left = scores[static_cast<size_t>(a)], right = scores[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  });
  std::vector<Choice> chosen;
  double sum = 0;
  const double most = scores[static_cast<size_t>(order.front())];
  for (int32_t i = 0; i < count; ++i)
    sum += std::exp(scores[static_cast<size_t>(order[static_cast<size_t>(i)])] - most);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t expert = order[static_cast<size_t>(i)];
    chosen.push_back({expert, static_cast<float>(std::exp(scores[static_cast<size_t>(expert)] - most) / sum)});
  }
  return chosen;
}

}  // namespace

// Of the block's rows [block rows, model_dim]: those of each expert.
std::vector<std::vector<Transformer::RoutedRow>> Transformer::route(const LayerWeights& w, const float* rows,
                                                                    const Block& block) {
  Scratch& scratch = scratch_[static_cast<size_t>(block.thread)];
  const Operand operand{w.router.k(), block.rows(), w.router.widest()};
  const size_t row_bytes = router_ops_->row_bytes(w.router.k());
  const auto model_dim = static_cast<size_t>(padded_.model_dim);
  for (int32_t r = 0; r < block.rows(); ++r)
    router_ops_->pack_row(rows + static_cast<size_t>(r) * model_dim, operand,
                          scratch.router_operand.data() + static_cast<size_t>(r) * row_bytes);
  const size_t stride = static_cast<size_t>(w.router.num_panels()) * kPanelOutputs;
  float* scores = scratch.scores.as<float>().data();
  router_ops_->gemm({.a = scratch.router_operand.data(),
                     .operand = operand,
                     .panels = w.router.panels(),
                     .panel_begin = 0,
                     .panel_end = w.router.num_panels(),
                     .epilogue = Epilogue::kStore,
                     .out = scores,
                     .out_stride = stride,
                     .scratch = scratch.router_panel.data()});
  const auto experts = static_cast<size_t>(config_.layer.experts);
  std::vector<std::vector<RoutedRow>> routed(experts);
  for (int32_t r = 0; r < block.rows(); ++r)
    for (const Choice& choice : choose({scores + static_cast<size_t>(r) * stride, experts}, config_.layer.experts_used))
      routed[static_cast<size_t>(choice.expert)].push_back({r, choice.weight});
  return routed;
}

void Transformer::mix_experts(const LayerWeights& w, Activations& x, const Block& block) {
  Scratch& scratch = scratch_[static_cast<size_t>(block.thread)];
  const auto model_dim = static_cast<size_t>(padded_.model_dim);
  float* rows = scratch.routed.as<float>().data();
  for (int32_t r = 0; r < block.rows(); ++r)
    std::copy_n(normalized(x, block, r, config_.layer.norm, w.ffn_norm), model_dim,
                rows + static_cast<size_t>(r) * model_dim);
  const std::vector<std::vector<RoutedRow>> routed = route(w, rows, block);
  float* sums = scratch.floats.as<float>().data();  // [rows of an expert, model_dim]
  for (size_t e = 0; e < routed.size(); ++e) {
    if (routed[e].empty()) continue;
    const FfnWeights& ffn = w.ffn[e];
    const Block mine{0, static_cast<int32_t>(std::ssize(routed[e])), block.thread, block.shared};
    for (int32_t i = 0; i < mine.rows(); ++i)
      pack(mine, i, rows + static_cast<size_t>(routed[e][static_cast<size_t>(i)].row) * model_dim, ffn.in);
    multiply_ffn(ffn, {}, mine);
    multiply(mine, ffn.down, Epilogue::kStore, sums, model_dim);
    for (size_t i = 0; i < routed[e].size(); ++i) {
      float* row = x.row(block.begin + routed[e][i].row);
      for (size_t d = 0; d < model_dim; ++d) row[d] += routed[e][i].weight * sums[i * model_dim + d];
    }
  }
}

}  // namespace runahead
