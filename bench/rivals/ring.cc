// Ring attention (Liu, Zaharia, Abbeel 2023), which passes keys and values: in every layer each rank's block goes once around,
// and while a rank attends to the block it has, that block is under way to the next rank. Zigzag, as in Megatron's context
// parallelism: of 2p chunks a rank has one early and the opposite late one, so that all do the same work in every step.
// Blocks come in an order of the ring's, so that the last bits are not one worker's; the token is.
#include "bench/rivals/schemes.h"

namespace runahead::rivals {
namespace {

// A chunk of this rank and what has been computed of it.
struct Part {
  TokenRange chunk;
  std::unique_ptr<Hidden> x;
  RowRange rows;
  bool begun = false;  // has attended to a page of this layer
};

// The last rank has the end of the prompt, and so the first token.
struct Ring {
  explicit Ring(RankRun& run) : ranks(run.ranks()), rank(run.rank()) {
    for (const int32_t i : {ranks - 1 - rank, ranks + rank})
      parts.push_back({run.chunk(i), nullptr, {0, run.chunk(i).size()}});
  }
  // Who made the block that this rank has after so many steps.
  int32_t owner(int32_t rank_of, int32_t step) const { return (rank_of - step + ranks) % ranks; }
  std::vector<TokenRange> block(RankRun& run, int32_t step) const {
    const int32_t made_by = owner(rank, step);
    return {run.chunk(ranks - 1 - made_by), run.chunk(ranks + made_by)};
  }
  int32_t ranks, rank;
  std::vector<Part> parts;
};

std::vector<int32_t> pages_in_order(RankRun& run, const Ring& ring, int32_t sender) {
  std::vector<int32_t> pages;
  for (int32_t step = 0; step + 1 < ring.ranks; ++step) {
    const int32_t made_by = ring.owner(sender, step);
    for (const int32_t i : {ring.ranks - 1 - made_by, ring.ranks + made_by}) {
      const std::vector<int32_t> more = pages_of(run.chunk(i));
      pages.insert(pages.end(), more.begin(), more.end());
    }
  }
  return pages;
}

void attend_to(RankRun& run, int32_t layer, Part& part, TokenRange keys) {
  if (keys.begin > part.chunk.begin) return;  // all of them come later
  run.engine().attend_in_any_order(layer, *part.x, run.kv(), {keys.first_page(), keys.end_page()}, part.rows,
                                   !part.begun);
  part.begun = true;
}

// Of the last layer only the last token's row is needed, and its keys and values everywhere.
void begin_layer(RankRun& run, int32_t layer, Ring& ring) {
  for (Part& part : ring.parts) {
    if (layer == 0) part.x = run.engine().embed(run.tokens_of(part.chunk));
    run.engine().project_qkv(layer, *part.x, run.kv(), part.chunk, part.rows);
    part.begun = false;
  }
  if (layer + 1 < run.num_layers()) return;
  ring.parts.erase(ring.parts.begin(), ring.parts.begin() + (run.is_last() ? 1 : 2));
  if (!run.is_last()) return;
  run.engine().keep_last_row(*ring.parts.front().x);
  ring.parts.front().rows = {0, 1};
}

}  // namespace

Task<void> run_ring(RankRun& run) {
  Ring ring(run);
  const int32_t p = ring.ranks, next = (ring.rank + 1) % p, before = (ring.rank + p - 1) % p;
  HopOut* out = p > 1 ? &run.send_to(next, pages_in_order(run, ring, ring.rank)) : nullptr;
  HopIn* in = p > 1 ? &run.receive_from(before, pages_in_order(run, ring, before)) : nullptr;
  const auto pages_in_block = [&](int32_t step) {
    int32_t pages = 0;
    for (const TokenRange chunk : ring.block(run, step)) pages += chunk.end_page() - chunk.first_page();
    return pages;
  };
  CO_TRY(run.open([out, own = pages_in_block(0)](const KvArrival& page) {
    const int32_t there = own + page.key.page;  // the block that comes in a step goes on in the next one
    if (there < out->pages()) out->knows({page.key.layer, there}, page.crc32c);
  }));

  for (int32_t layer = 0; layer < run.num_layers(); ++layer) {
    co_await run.compute([&] { begin_layer(run, layer, ring); });
    for (int32_t step = 0, sent = 0, come = 0; step < p; ++step) {
      if (step > 0) {
        come += pages_in_block(step);
        Result<void> arrived = co_await run.wait(*in, layer, come);
        CO_TRY(arrived);
      }
      if (step + 1 < p) {
        const int32_t pages = pages_in_block(step);
        out->post(layer, sent, sent + pages);
        sent += pages;
      }
      co_await run.compute([&] {
        for (Part& part : ring.parts)
          for (const TokenRange keys : ring.block(run, step)) attend_to(run, layer, part, keys);
      });
    }
    co_await run.compute([&] {
      for (Part& part : ring.parts) run.engine().finish_layer(layer, *part.x, part.rows);
    });
  }
  if (run.is_last()) co_await run.first_token(*ring.parts.front().x);
  co_return Result<void>{};
}

}  // namespace runahead::rivals
