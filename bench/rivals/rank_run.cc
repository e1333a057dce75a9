#include "bench/rivals/rank_run.h"

#include <algorithm>

#include "base/sha256.h"
#include "model/sampler.h"
#include "model/transformer/prefill.h"
#include "planner/partition.h"

namespace runahead::rivals {
namespace {

Error invalid(std::string text, std::string field) {
  return {ErrorCode::kInvalidArgument, std::move(text), std::move(field)};
}

const Scheme* scheme_of(std::string_view name) {
  const auto found = std::ranges::find(schemes(), name, &Scheme::name);
  return found == schemes().end() ? nullptr : &*found;
}

Result<Partition> chunks_of(const RankOrder& order, const Scheme& scheme) {
  const int32_t wanted = static_cast<int32_t>(order.peers.size()) * std::max(1, scheme.chunks_a_rank);
  const auto tokens = static_cast<int32_t>(order.tokens.size());
  Partition chunks = even_partition(tokens, wanted);
  if (!order.cuts.empty()) chunks = TRY(partition_by_hand(tokens, order.cuts));
  if (scheme.chunks_a_rank > 0 && std::ssize(chunks) != wanted)
    return std::unexpected(invalid(order.scheme + " wants " + std::to_string(wanted) + " chunks for " +
                                       std::to_string(order.peers.size()) + " ranks, not " +
                                       std::to_string(chunks.size()),
                                   "cuts"));
  return chunks;
}

}  // namespace

std::vector<int32_t> pages_of(TokenRange chunk) {
  std::vector<int32_t> pages;
  for (int32_t page = chunk.first_page(); page < chunk.end_page(); ++page) pages.push_back(page);
  return pages;
}

RankRun::RankRun(const RankEnv& env, RankOrder order, std::function<void(const FirstToken&)> on_token)
    : env_(env),
      order_(std::move(order)),
      on_token_(std::move(on_token)),
      began_(env_.clock.now()),
      deadline_(env_.clock.after(from_seconds(order_.limit_seconds))),
      gate_(env_.executor, env_.clock) {}

Result<void> RankRun::prepare() {
  const Scheme* scheme = scheme_of(order_.scheme);
  if (scheme == nullptr) return std::unexpected(invalid("there is no scheme '" + order_.scheme + "'", "scheme"));
  if (order_.peers.empty() || order_.rank < 0 || order_.rank >= ranks())
    return std::unexpected(invalid("a rank is one of the peers", "rank"));
  TRY(check_tokens(env_.engine, order_.tokens));
  chunks_ = TRY(chunks_of(order_, *scheme));
  kv_ = TRY(env_.pool.lease(num_layers(), static_cast<int32_t>(order_.tokens.size())));
  return {};
}

std::span<const TokenId> RankRun::tokens_of(TokenRange chunk) const {
  return std::span(order_.tokens).subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size()));
}

HopShape RankRun::shape(int32_t from, int32_t to) const {
  return {.attempt = {.epoch = 1, .request = order_.run, .attempt = static_cast<uint32_t>(from * ranks() + to + 1)},
          .peer = order_.peers[static_cast<size_t>(from == rank() ? to : from)]};
}

HopShape RankRun::kv_shape(int32_t from, int32_t to, std::vector<int32_t> pages) const {
  HopShape hop = shape(from, to);
  hop.num_layers = num_layers();
  hop.pages = static_cast<int32_t>(pages.size());
  hop.page_bytes = env_.pool.page_bytes();
  hop.memory = [kv = kv_.get(), pages = std::move(pages)](KvPageKey key) {
    return kv->page(key.layer, pages[static_cast<size_t>(key.page)]);
  };
  return hop;
}

HopShape RankRun::piece_shape(int32_t from, int32_t to, AlignedBuffer& memory, int32_t pieces) const {
  HopShape hop = shape(from, to);
  hop.num_layers = 1;
  hop.pages = pieces;
  hop.page_bytes = memory.size() / static_cast<size_t>(pieces);
  hop.memory = [begin = memory.data(), bytes = hop.page_bytes](KvPageKey key) {
    return std::span(begin + static_cast<size_t>(key.page) * bytes, bytes);
  };
  return hop;
}

HopOut& RankRun::add_out(HopShape hop) { return *outs_.emplace_back(std::make_unique<HopOut>(std::move(hop))); }

HopIn& RankRun::add_in(HopShape hop) {
  return *ins_.emplace_back(std::make_unique<HopIn>(std::move(hop), env_.executor, env_.clock));
}

HopOut& RankRun::send_to(int32_t peer, std::vector<int32_t> pages) {
  return add_out(kv_shape(rank(), peer, std::move(pages)));
}
HopIn& RankRun::receive_from(int32_t peer, std::vector<int32_t> pages, int32_t layers_open) {
  HopShape hop = kv_shape(peer, rank(), std::move(pages));
  hop.layers_open = layers_open;
  return add_in(std::move(hop));
}
HopOut& RankRun::send_pieces_to(int32_t peer, AlignedBuffer& memory, int32_t pieces) {
  return add_out(piece_shape(rank(), peer, memory, pieces));
}
HopIn& RankRun::receive_pieces_from(int32_t peer, AlignedBuffer& memory, int32_t pieces) {
  return add_in(piece_shape(peer, rank(), memory, pieces));
}

AlignedBuffer& RankRun::keep(size_t bytes) { return *buffers_.emplace_back(std::make_unique<AlignedBuffer>(bytes)); }

Result<void> RankRun::open(std::function<void(const KvArrival&)> on_page) {
  for (const auto& in : ins_) TRY(in->open(env_.kv, gate_, deadline_, on_page));
  for (const auto& out : outs_) TRY(out->open(env_.kv));
  return {};
}

asio::awaitable<void> RankRun::compute(std::function<void()> work) {
  const ComputeLane::Timing timing = co_await env_.lane.run({}, std::move(work));
  computed_ += timing.computed;
}

Task<void> RankRun::wait(HopIn& in, int32_t layer, int32_t count) {
  const Time asked = env_.clock.now();
  Result<void> come = co_await in.wait(layer, count);
  waited_ += env_.clock.now() - asked;
  co_return come;
}

Task<void> RankRun::wait(HopIn& in, int32_t layer) { return wait(in, layer, in.pages()); }

asio::awaitable<void> RankRun::first_token(Hidden& x) {
  FirstToken first;
  co_await compute([&] {
    std::vector<float> logits(static_cast<size_t>(engine().shape().vocab_size));  // [vocab_size]
    engine().logits(x, logits);
    first.logits_sha256 = hex(sha256(std::as_bytes(std::span(logits))));
    first.token = sample(logits, {.temperature = 0}, {}, {}, 0).token;
  });
  if (on_token_) on_token_(first);
}

Task<void> RankRun::drain() {
  for (const auto& out : outs_) {
    Result<void> drained = co_await out->drain(deadline_);
    CO_TRY(drained);
  }
  co_return Result<void>{};
}

asio::awaitable<void> RankRun::close() {
  for (const auto& in : ins_) co_await in->close();
  for (const auto& out : outs_) co_await out->close();
  co_await gate_.close();
}

RankReport RankRun::report() const {
  RankReport report{.seconds = seconds(env_.clock.now() - began_),
                    .compute_seconds = seconds(computed_),
                    .wait_seconds = seconds(waited_)};
  for (const auto& out : outs_) report.sent_bytes += out->bytes();
  return report;
}

Task<RankReport> run_rank(const RankEnv& env, RankOrder order, std::function<void(const FirstToken&)> on_token) {
  RankRun run(env, std::move(order), std::move(on_token));
  Result<void> done = run.prepare();
  if (done) done = co_await scheme_of(run.order_.scheme)->run(run);
  if (done) done = co_await run.drain();
  const RankReport report = done ? run.report() : RankReport{};
  co_await run.close();
  CO_TRY(done);
  co_return report;
}

}  // namespace runahead::rivals
