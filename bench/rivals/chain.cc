// The chain with its ideas one by one, for what each of them is worth (docs/benchmarks.md, "What each idea is worth"). With none
// of them it is the paper's (its section 4.1, figure 5 and table 5): when a rank reaches a layer it posts the receive of the
// whole prefix, projects its own rows meanwhile, waits, sends all of it on with its own, and attends. (What flatters the paper's:
// nothing is copied to concatenate.) With all of them it is what actors/worker/prefill_worker.cc does, without a service around.
#include "bench/rivals/schemes.h"

namespace runahead::rivals {
namespace {

struct ChainRank {
  ChainRank(RankRun& run, const ChainIdeas& ideas) : chunk(run.chunk()), rows{0, chunk.size()} {
    const int32_t open = ideas.posted_receives ? 0 : 1;
    if (run.rank() > 0) in = &run.receive_from(run.rank() - 1, pages_of({0, chunk.begin}), open);
    if (!run.is_last()) out = &run.send_to(run.rank() + 1, pages_of({0, chunk.end}));
  }
  void post_prefix(int32_t layer) const {
    if (out != nullptr) out->post(layer, 0, chunk.first_page());
  }
  void post_own(int32_t layer) const {
    if (out != nullptr) out->post(layer, chunk.first_page(), chunk.end_page());
  }

  const TokenRange chunk;
  RowRange rows;
  HopIn* in = nullptr;
  HopOut* out = nullptr;
  std::unique_ptr<Hidden> x;
};

// Attends to pages of the prefix as they come, or waits for all of them; returns how many are attended to.
Task<int32_t> take_prefix(RankRun& run, ChainRank& rank, int32_t layer, bool as_it_comes) {
  int32_t done = 0;
  while (rank.in != nullptr && done < rank.chunk.first_page()) {
    Result<void> come = co_await run.wait(*rank.in, layer, as_it_comes ? done + 1 : rank.chunk.first_page());
    CO_TRY(come);
    const int32_t ready = rank.in->ready(layer);
    if (ready == rank.chunk.first_page()) break;  // one job for these and the own ones
    co_await run.compute([&] { run.engine().attend(layer, *rank.x, run.kv(), rank.chunk, {done, ready}, rank.rows); });
    done = ready;
  }
  co_return done;
}

}  // namespace

Task<void> run_chain(RankRun& run, ChainIdeas ideas) {
  ChainRank rank(run, ideas);
  CO_TRY(run.open([&rank, ideas](const KvArrival& page) {
    if (rank.out == nullptr) return;
    rank.out->knows(page.key, page.crc32c);
    if (ideas.cut_through) rank.out->post(page.key.layer, page.key.page, page.key.page + 1);
  }));
  co_await run.compute([&] { rank.x = run.engine().embed(run.tokens_of(rank.chunk)); });
  for (int32_t layer = 0; layer < run.num_layers(); ++layer) {
    const bool shortened = ideas.short_last_layer && layer + 1 == run.num_layers();
    if (rank.in != nullptr && !ideas.posted_receives) rank.in->open_layers(layer + 1);
    co_await run.compute([&] { run.engine().project_qkv(layer, *rank.x, run.kv(), rank.chunk, rank.rows); });
    if (ideas.send_own == SendOwn::kAtOnce) rank.post_own(layer);
    if (shortened && run.is_last()) {
      run.engine().keep_last_row(*rank.x);
      rank.rows = {0, 1};
    }
    Result<int32_t> attended =
        co_await take_prefix(run, rank, layer, ideas.attend_as_it_comes && !(shortened && !run.is_last()));
    CO_TRY(attended);
    if (!ideas.cut_through) rank.post_prefix(layer);
    if (ideas.send_own == SendOwn::kBehindPrefix) rank.post_own(layer);
    if (shortened && !run.is_last()) {
      if (ideas.send_own == SendOwn::kBehindAttention) rank.post_own(layer);
      break;
    }
    co_await run.compute([&] {
      if (!ideas.causal && !shortened) attend_masked(run, layer, *rank.x, rank.chunk.end_page());
      run.engine().attend(layer, *rank.x, run.kv(), rank.chunk, {*attended, rank.chunk.end_page()}, rank.rows);
    });
    if (ideas.send_own == SendOwn::kBehindAttention) rank.post_own(layer);
    co_await run.compute([&] { run.engine().finish_layer(layer, *rank.x, rank.rows); });
  }
  if (run.is_last()) co_await run.first_token(*rank.x);
  co_return Result<void>{};
}

}  // namespace runahead::rivals
