#include "planner/chain_timeline.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/rng.h"

namespace runahead {
namespace {

// Seconds a layer.
struct Costs {
  double qkv = 0, attention = 0, rest = 0;   // of a whole layer
  double last_attention = 0, last_rest = 0;  // of the last layer
  double after_prefix = 0;  // attention left when the last prefix page comes: that page and the own chunk
  double link_layer = 0, link_own = 0, link_page = 0, latency = 0;  // link into this rank: a layer's prefix, the part
      // that the rank before owns, one page
  double link_tokens_per_second = 0;  // of one layer

  void slow_down(double compute, double link) {
    for (double* seconds : {&qkv, &attention, &rest, &last_attention, &last_rest, &after_prefix}) *seconds *= compute;
    for (double* seconds : {&link_layer, &link_own, &link_page}) *seconds *= link;
    link_tokens_per_second /= link;
  }
};

// Where the rank stands in the layer in work.
struct Rank {
  double ready = 0;  // K,V of this layer are written
  double arrived = 0;  // the last prefix page of this layer is here
  double sent = 0;  // the link into this rank has sent the last page of the layer before
  double end = 0;  // this layer is done
};

std::vector<Costs> prepare(const ModelCost& model, std::span<const WorkerProfile> chain,
                           std::span<const TokenRange> partition) {
  const double layers = model.num_layers, kv_layer_bytes = model.kv_bytes_per_token / layers;
  std::vector<Costs> ranks(partition.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    Costs& rank = ranks[i];
    const auto [per_token, per_pair, per_chunk, per_prefix_token] = chain[i].speed;
    const double n = partition[i].size(), prefix = partition[i].begin;
    const bool last = i + 1 == ranks.size();
    rank.qkv = (model.qkv_share * per_token * n + per_chunk) / layers;
    rank.rest = (1 - model.qkv_share) * per_token * n / layers;
    const double own = per_pair * attention_pairs(model, 0, n) / layers;
    const double in_reach = tokens_in_reach(model, prefix), walk = per_prefix_token * in_reach / layers;
    rank.attention = per_pair * attention_pairs(model, prefix, n) / layers + walk;
    rank.after_prefix = own + per_pair * n * std::min<double>(prefix, kPageTokens) / layers;
    rank.last_attention = rank.attention;
    rank.last_rest = rank.rest;
    if (model.skip_last_layer) {
      rank.last_attention = last ? per_pair * tokens_in_reach(model, partition[i].end) / layers + walk : 0;
      rank.last_rest = last ? (1 - model.qkv_share) * per_token / layers : 0;
    }
    if (i == 0) continue;
    rank.link_tokens_per_second = chain[i].ingress.bytes_per_second / kv_layer_bytes;
    rank.link_layer = in_reach / rank.link_tokens_per_second;
    rank.link_own = std::min(in_reach, tokens_in_reach(model, partition[i - 1].size())) / rank.link_tokens_per_second;
    rank.link_page = std::min<double>(prefix, kPageTokens) / rank.link_tokens_per_second * chain[i].ingress.links;
    rank.latency = chain[i].ingress.latency_seconds;
  }
  return ranks;
}

// When the last prefix page of this layer reaches `to`. A link that always works when it has work is done at the latest
// "t + work that comes at or after t": t = the layer before is sent; the rank before writes its own pages; its last
// prefix page comes.
double arrival(const Rank& from, double from_tokens_per_second, bool from_is_first, Rank& to, const Costs& link) {
  double done = std::max(to.sent + link.link_layer, from.ready + link.link_own);
  if (!from_is_first) {
    const double upstream_late_tokens = std::max(0.0, from.arrived - from.ready) * from_tokens_per_second;
    const double upstream_late =
        std::min(upstream_late_tokens / link.link_tokens_per_second, link.link_layer - link.link_own);
    done = std::max({done, from.ready + link.link_own + upstream_late, from.arrived + link.link_page});
  }
  to.sent = done;
  return done + link.latency;
}

// slow: changes what one layer costs one rank.
template <class Slow>
ChainTimeline timeline_of(const ModelCost& model, std::span<const WorkerProfile> chain,
                          std::span<const TokenRange> partition, Slow slow) {
  RUNAHEAD_CHECK(!partition.empty() && chain.size() == partition.size(), "one worker a rank");
  const std::vector<Costs> costs = prepare(model, chain, partition);
  std::vector<Rank> ranks(costs.size());
  ChainTimeline timeline{.ranks = std::vector<RankTimeline>(ranks.size())};
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i].end = chain[i].busy_seconds;
  double first_page = ranks[0].end + costs[0].qkv;  // the link into rank i cannot work before any page is there
  for (size_t i = 1; i < ranks.size(); ++i) {
    ranks[i].sent = std::min(first_page, ranks[i - 1].end + costs[i - 1].qkv);
    first_page = ranks[i].sent + costs[i].link_page + costs[i].latency;
  }
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    const bool last_layer = layer + 1 == model.num_layers;
    for (size_t i = 0; i < ranks.size(); ++i) {
      Rank& rank = ranks[i];
      Costs cost = costs[i];
      slow(cost);
      const bool stops = last_layer && model.skip_last_layer && i + 1 < ranks.size();
      const double attention = last_layer ? cost.last_attention : cost.attention;
      rank.ready = rank.end + cost.qkv;
      if (i > 0) rank.arrived = arrival(ranks[i - 1], costs[i - 1].link_tokens_per_second, i == 1, rank, cost);
      double attended = rank.ready + attention;
      if (i > 0 && !stops) {
        const double waited = std::max(0.0, rank.arrived + std::min(cost.after_prefix, attention) - attended);
        timeline.ranks[i].kv_wait_seconds += waited;
        attended += waited;
      }
      rank.end = attended + (last_layer ? cost.last_rest : cost.rest);
    }
  }
  for (size_t i = 0; i < ranks.size(); ++i)
    timeline.ranks[i].compute_seconds =
        compute_seconds(chain[i].speed, chunk_work(model, partition[i], i + 1 == ranks.size()));
  timeline.ttft_seconds = ranks.back().end + chain.back().speed.seconds_per_token * model.head_tokens;
  return timeline;
}

}  // namespace

ChainTimeline chain_timeline(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition) {
  return timeline_of(model, chain, partition, [](Costs&) {});
}

ChainTimeline chain_timeline(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition, const Jitter& jitter) {
  uint64_t drawn = 0;
  const auto uniform = [&] { return philox_uniform(jitter.seed, drawn++); };
  return timeline_of(model, chain, partition, [&](Costs& cost) {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));  // Box and Muller
    const double normal = radius * std::cos(2 * std::numbers::pi * uniform());
    const bool stalls = uniform() < jitter.stall_probability;
    cost.slow_down(std::exp(jitter.compute_spread * normal), stalls ? jitter.stall_factor : 1);
  });
}

int64_t chain_traffic_rows(std::span<const TokenRange> partition) {
  int64_t rows = 0;
  for (const TokenRange& range : partition) rows += range.begin;
  return rows;
}

}  // namespace runahead
