#include "page_simulation.h"

#include <functional>
#include <map>
#include <set>

namespace runahead {
namespace {

class PageSimulation {
 public:
  PageSimulation(const ModelCost& model, std::span<const WorkerProfile> chain, std::span<const TokenRange> partition)
      : model_(model), chain_(chain), partition_(partition), ranks_(chain.size()) {
    for (Rank& rank : ranks_) rank.arrived.resize(static_cast<size_t>(model.num_layers));
  }

  ChainTimeline run() {
    for (size_t i = 0; i < ranks_.size(); ++i) begin_layer(i);
    while (!events_.empty()) {
      auto first = events_.begin();
      now_ = first->first;
      auto action = std::move(first->second);
      events_.erase(first);
      action();
    }
    ChainTimeline timeline{.ttft_seconds = ttft_};
    for (const Rank& rank : ranks_) timeline.ranks.push_back({rank.compute, rank.waited});
    return timeline;
  }

 private:
  struct Rank {
    int32_t layer = 0;
    int32_t attended = 0;  // prefix pages of this layer
    double compute = 0, waited = 0;
    double waiting_since = -1;
    std::vector<std::set<int32_t>> arrived;         // [layers] pages from upstream
    std::set<std::pair<int32_t, int32_t>> to_send;  // (layer, page) on the link to the next rank, lowest first
    int32_t links_busy = 0;
  };

  bool is_last(size_t i) const { return i + 1 == ranks_.size(); }
  void after(double seconds, std::function<void()> action) { events_.emplace(now_ + seconds, std::move(action)); }
  void compute(size_t i, double seconds, std::function<void()> then) {
    ranks_[i].compute += seconds;
    after(seconds, std::move(then));
  }

  void begin_layer(size_t i) {
    ranks_[i].attended = 0;
    compute(i, chain_[i].speed.seconds_per_token * model_.qkv_share * partition_[i].size() / model_.num_layers,
            [this, i] { keys_written(i); });
  }

  void keys_written(size_t i) {
    Rank& rank = ranks_[i];
    if (!is_last(i))
      for (int32_t page = partition_[i].first_page(); page < partition_[i].end_page(); ++page)
        rank.to_send.insert({rank.layer, page});
    send(i);
    if (rank.layer + 1 == model_.num_layers && model_.skip_last_layer && !is_last(i)) return;
    attend(i);
  }

  // Queries of the layer in work: all of the chunk, or one on the last rank in the last layer.
  double queries(size_t i) const {
    const bool one = model_.skip_last_layer && is_last(i) && ranks_[i].layer + 1 == model_.num_layers;
    return one ? 1 : partition_[i].size();
  }

  void attend(size_t i) {
    Rank& rank = ranks_[i];
    const int32_t prefix_pages = partition_[i].first_page();
    const double pair = chain_[i].speed.seconds_per_pair / model_.num_layers;
    if (rank.attended == prefix_pages) {
      const double n = partition_[i].size();
      const double own_pairs = queries(i) < n ? queries(i) * n : model_.diagonal_share * n * n;
      const double rest = (1 - model_.qkv_share) * chain_[i].speed.seconds_per_token * queries(i) / model_.num_layers;
      compute(i, pair * own_pairs + rest, [this, i] { end_layer(i); });
      return;
    }
    int32_t here = rank.attended;
    while (here < prefix_pages && rank.arrived[static_cast<size_t>(rank.layer)].contains(here)) ++here;
    if (here == rank.attended) {
      rank.waiting_since = now_;
      return;
    }
    const double pairs = queries(i) * kPageTokens * (here - rank.attended);
    rank.attended = here;
    compute(i, pair * pairs, [this, i] { attend(i); });
  }

  void end_layer(size_t i) {
    Rank& rank = ranks_[i];
    if (++rank.layer < model_.num_layers) return begin_layer(i);
    if (is_last(i)) compute(i, chain_[i].speed.seconds_per_token * model_.head_tokens, [this] { ttft_ = now_; });
  }

  void send(size_t i) {
    Rank& rank = ranks_[i];
    if (rank.to_send.empty()) return;
    const LinkSpeed& link = chain_[i + 1].ingress;
    if (rank.links_busy == link.links) return;
    const auto [layer, page] = *rank.to_send.begin();
    rank.to_send.erase(rank.to_send.begin());
    ++rank.links_busy;
    const double seconds =
        model_.kv_bytes_per_token / model_.num_layers * kPageTokens / (link.bytes_per_second / link.links);
    after(seconds, [this, i] {
      --ranks_[i].links_busy;
      send(i);
    });
    send(i);
    after(seconds + link.latency_seconds, [this, i, layer, page] { arrive(i + 1, layer, page); });
  }

  void arrive(size_t i, int32_t layer, int32_t page) {
    Rank& rank = ranks_[i];
    rank.arrived[static_cast<size_t>(layer)].insert(page);
    if (!is_last(i)) rank.to_send.insert({layer, page});
    send(i);
    if (rank.waiting_since < 0 || layer != rank.layer || page != rank.attended) return;
    rank.waited += now_ - rank.waiting_since;
    rank.waiting_since = -1;
    attend(i);
  }

  const ModelCost& model_;
  std::span<const WorkerProfile> chain_;
  std::span<const TokenRange> partition_;
  std::vector<Rank> ranks_;
  std::multimap<double, std::function<void()>> events_;
  double now_ = 0, ttft_ = 0;
};

}  // namespace

ChainTimeline simulate_pages(const ModelCost& model, std::span<const WorkerProfile> chain,
                             std::span<const TokenRange> partition) {
  return PageSimulation(model, chain, partition).run();
}

}  // namespace runahead
