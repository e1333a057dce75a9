// RankRun: one rank's part of one run of a rival scheme, and what a scheme is written with: its chunk, its pages, ways to the
// other ranks, compute on the lane, and the accounts of both. The schemes are rivals of the chain
// (actors/worker/prefill_worker.cc) on the same kernels, pages, transports and lane; each is a file beside this one. They are
// for measuring: one run at a time, nothing is retried, and a failure ends the run.
//   threads  the rank's executor; what is given to compute() runs on the lane.
//   owner    run_rank(), for the time of one run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/worker/compute_lane.h"
#include "base/async/gate.h"
#include "bench/rivals/rank_hop.h"
#include "model/transformer/transformer.h"

namespace runahead::rivals {

struct RankEnv {
  asio::any_io_executor executor;
  Clock& clock;
  KvTransport& kv;
  KvPool& pool;
  ComputeLane& lane;
  Transformer& engine;
};

// What the driver says to one rank.
struct RankOrder {
  uint64_t run = 0;  // the same for all ranks, and new for each run
  std::string scheme;
  int32_t rank = 0;
  std::vector<std::string> peers;  // KvTransport::address() of every rank
  std::vector<TokenId> tokens;  // the whole prompt
  std::vector<int32_t>
      cuts;  // where chunks begin but the first; multiples of kPageTokens. Empty: even, one chunk a rank
  double limit_seconds = 600;
};

struct RankReport {
  double seconds = 0;  // to the end of this rank's part
  double compute_seconds = 0;  // on the lane
  double wait_seconds = 0;  // for pages
  uint64_t sent_bytes = 0;
};

// What the last rank ends with.
struct FirstToken {
  TokenId token = 0;  // the most likely one
  std::string logits_sha256;
};

struct Scheme {
  std::string_view name;
  std::string_view what;  // one line for people
  int32_t chunks_a_rank;  // 0: any number of chunks, whatever the ranks
  bool exact;  // one worker's logits to the bit
  Task<void> (*run)(class RankRun&);
};
std::span<const Scheme> schemes();

std::vector<int32_t> pages_of(TokenRange chunk);

// kInvalidArgument in words if the order cannot be carried out. on_token: once, on the last rank, before the run ends.
Task<RankReport> run_rank(const RankEnv& env, RankOrder order, std::function<void(const FirstToken&)> on_token);

class RankRun {
 public:
  RankRun(const RankEnv& env, RankOrder order, std::function<void(const FirstToken&)> on_token);

  // ---- where it stands ----
  Transformer& engine() { return env_.engine; }
  KvLease& kv() { return *kv_; }
  int32_t rank() const { return order_.rank; }
  int32_t ranks() const { return static_cast<int32_t>(order_.peers.size()); }
  bool is_last() const { return rank() + 1 == ranks(); }
  int32_t num_layers() const { return env_.engine.shape().num_layers; }
  const std::vector<TokenRange>& chunks() const { return chunks_; }
  TokenRange chunk(int32_t i) const { return chunks_[static_cast<size_t>(i)]; }
  TokenRange chunk() const { return chunk(rank()); }
  int32_t total_pages() const { return pages_for(static_cast<int32_t>(order_.tokens.size())); }
  std::span<const TokenId> tokens_of(TokenRange chunk) const;

  // ---- ways to others: all before open(), one a direction and peer ----
  // K/V pages of every layer, by their place in the context, in the order in which they are sent.
  HopOut& send_to(int32_t peer, std::vector<int32_t> pages);
  // layers_open: as in KvInboundParams.
  HopIn& receive_from(int32_t peer, std::vector<int32_t> pages, int32_t layers_open = 0);
  // The same for other memory, which keep() gives: so many equal pieces of it, in one layer.
  HopOut& send_pieces_to(int32_t peer, AlignedBuffer& memory, int32_t pieces);
  HopIn& receive_pieces_from(int32_t peer, AlignedBuffer& memory, int32_t pieces);
  AlignedBuffer& keep(size_t bytes);  // until the run has ended
  Result<void> open(std::function<void(const KvArrival&)> on_page = {});

  // ---- the work ----
  asio::awaitable<void> compute(std::function<void()> work);
  Task<void> wait(HopIn& in, int32_t layer, int32_t count);
  Task<void> wait(HopIn& in, int32_t layer);
  asio::awaitable<void> first_token(Hidden& x);

 private:
  friend Task<RankReport> run_rank(const RankEnv&, RankOrder, std::function<void(const FirstToken&)>);
  Result<void> prepare();
  Task<void> drain();
  asio::awaitable<void> close();
  RankReport report() const;
  HopShape shape(int32_t from, int32_t to) const;
  HopShape kv_shape(int32_t from, int32_t to, std::vector<int32_t> pages) const;
  HopShape piece_shape(int32_t from, int32_t to, AlignedBuffer& memory, int32_t pieces) const;
  HopOut& add_out(HopShape hop);
  HopIn& add_in(HopShape hop);

  RankEnv env_;
  RankOrder order_;
  std::function<void(const FirstToken&)> on_token_;
  Time began_;
  Deadline deadline_;
  std::vector<TokenRange> chunks_;
  std::shared_ptr<KvLease> kv_;
  std::vector<std::unique_ptr<AlignedBuffer>> buffers_;
  Gate gate_;
  std::vector<std::unique_ptr<HopOut>> outs_;
  std::vector<std::unique_ptr<HopIn>> ins_;
  Duration computed_{0}, waited_{0};
};

}  // namespace runahead::rivals
