// The chain as the paper describes it (its section 4.1 and figure 5): in every layer a rank waits for the keys and values of the
// whole prefix, adds its own, sends all of them on, and attends. What ours does otherwise: pages are passed on as they come,
// own ones leave before the prefix is there, and attention begins with the first page. (Of the paper's waits only the receive is
// kept: sends are asynchronous, and nothing is copied to concatenate, which flatters it.)
#include "bench/rivals/schemes.h"

namespace runahead::rivals {

Task<void> run_paper_chain(RankRun& run) {
  const TokenRange chunk = run.chunk();
  HopIn* in = run.rank() > 0 ? &run.receive_from(run.rank() - 1, pages_of({0, chunk.begin})) : nullptr;
  HopOut* out = run.is_last() ? nullptr : &run.send_to(run.rank() + 1, pages_of({0, chunk.end}));
  CO_TRY(run.open([out](const KvArrival& page) {
    if (out != nullptr) out->knows(page.key, page.crc32c);
  }));

  std::unique_ptr<Hidden> x;
  RowRange rows{0, chunk.size()};
  co_await run.compute([&] { x = run.engine().embed(run.tokens_of(chunk)); });
  for (int32_t layer = 0; layer < run.num_layers(); ++layer) {
    const bool last_layer = layer + 1 == run.num_layers();
    co_await run.compute([&] { run.engine().project_qkv(layer, *x, run.kv(), chunk, rows); });
    if (in != nullptr) {
      Result<void> come = co_await run.wait(*in, layer);
      CO_TRY(come);
    }
    if (out != nullptr) out->post(layer);
    if (last_layer && !run.is_last()) break;  // the paper's, too: the first token is the last rank's
    if (last_layer) {
      run.engine().keep_last_row(*x);
      rows = {0, 1};
    }
    co_await run.compute([&] {
      run.engine().attend(layer, *x, run.kv(), chunk, {0, chunk.end_page()}, rows);
      run.engine().finish_layer(layer, *x, rows);
    });
  }
  if (run.is_last()) co_await run.first_token(*x);
  co_return Result<void>{};
}

}  // namespace runahead::rivals
