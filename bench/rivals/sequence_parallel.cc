// Tensor/sequence parallelism, the paper's baseline TSP (its section 3): the prompt is split evenly, and in every layer all
// ranks gather the keys and values of all others before they attend. As in the paper, the dense one computes all scores of its
// rows and masks those of later tokens afterwards; the causal one has our kernel, and leaves out of the last layer what nobody
// needs. Everybody sends to everybody: as many bytes a link as NCCL's ring, in one step.
#include "bench/rivals/schemes.h"

namespace runahead::rivals {

// The same number of visible pages costs the same as those that are masked.
void attend_masked(RankRun& run, int32_t layer, Hidden& x, int32_t pages) {
  const TokenRange chunk = run.chunk();
  for (int32_t row = 0; row < chunk.size(); row += kPageTokens) {
    const RowRange tile{row, std::min(row + kPageTokens, chunk.size())};
    const int32_t visible = (chunk.begin + row) / kPageTokens + 1;
    for (int32_t left = pages - visible; left > 0; left -= visible)
      run.engine().attend(layer, x, run.kv(), chunk, {0, std::min(left, visible)}, tile);
  }
}

namespace {

Task<void> gather_and_attend(RankRun& run, bool dense) {
  const TokenRange chunk = run.chunk();
  std::vector<HopOut*> outs;
  std::vector<HopIn*> ins;
  for (int32_t peer = 0; peer < run.ranks(); ++peer) {
    if (peer == run.rank()) continue;
    outs.push_back(&run.send_to(peer, pages_of(chunk)));
    ins.push_back(&run.receive_from(peer, pages_of(run.chunk(peer))));
  }
  CO_TRY(run.open());

  std::unique_ptr<Hidden> x;
  RowRange rows{0, chunk.size()};
  co_await run.compute([&] { x = run.engine().embed(run.tokens_of(chunk)); });
  for (int32_t layer = 0; layer < run.num_layers(); ++layer) {
    const bool last_layer = layer + 1 == run.num_layers();
    co_await run.compute([&] { run.engine().project_qkv(layer, *x, run.kv(), chunk, rows); });
    for (HopOut* out : outs) out->post(layer);
    for (HopIn* in : ins) {  // the barrier of every layer
      Result<void> come = co_await run.wait(*in, layer);
      CO_TRY(come);
    }
    if (last_layer && !dense) {
      if (!run.is_last()) break;
      run.engine().keep_last_row(*x);
      rows = {0, 1};
    }
    co_await run.compute([&] {
      if (dense) attend_masked(run, layer, *x, run.total_pages());
      run.engine().attend(layer, *x, run.kv(), chunk, {0, chunk.end_page()}, rows);
      run.engine().finish_layer(layer, *x, rows);
    });
  }
  if (run.is_last()) co_await run.first_token(*x);
  co_return Result<void>{};
}

}  // namespace

Task<void> run_dense_sequence_parallel(RankRun& run) { return gather_and_attend(run, true); }
Task<void> run_causal_sequence_parallel(RankRun& run) { return gather_and_attend(run, false); }

}  // namespace runahead::rivals
