// Which pages a lease has, and the pool that gives them: of layers with a window those in reach, whatever is asked in what order.
#include "model/lease_shape.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/rng.h"
#include "model/kv_pages.h"

namespace runahead {
namespace {

// Every third layer sees all.
ModelShape model_of(int32_t num_layers, int32_t window) {
  ModelShape model{.num_layers = num_layers};
  for (int32_t layer = 0; layer < num_layers; ++layer) model.windows.push_back(layer % 3 == 2 ? 0 : window);
  return model;
}

// Gemma 3 1B: 26 layers, every sixth sees all, the others 512 tokens. docs/benchmarks.md has these numbers.
TEST(LeaseShape, OfGemmasLayersIsAFractionOfAllPages) {
  ModelShape gemma{.num_layers = 26};
  for (int32_t layer = 0; layer < 26; ++layer) gemma.windows.push_back(layer % 6 == 5 ? 0 : 512);
  EXPECT_EQ(sequence_lease(gemma, 8000, 8192, 0, false).own_pages(), 4 * 128 + 22 * 9);
  EXPECT_EQ(sequence_lease(gemma, 8000, 8192, 0, true).own_pages(), 4 * 128 + 22 * (8 + 3)) << "8 of the prompt stay";
  EXPECT_EQ(sequence_lease(gemma, 64, 8192, 0, true).own_pages(), 4 * 128 + 22 * (1 + 9));
  const auto ranks = [](const ModelShape& model) {
    std::vector<int64_t> pages;
    for (int32_t begin = 0; begin < 8192; begin += 2048)
      pages.push_back(rank_lease(model, {begin, begin + 2048}, 0, begin == 6144).own_pages());
    return pages;
  };
  // Of seven layers at once two see all.
  const std::vector<int64_t> in_reach = {7 * 32, 2 * 64 + 5 * (32 + 8), 2 * 96 + 5 * (32 + 8), 4 * 128 + 22 * (32 + 8)};
  EXPECT_EQ(ranks(gemma), in_reach);
  gemma.windows.clear();
  EXPECT_EQ(ranks(gemma), (std::vector<int64_t>{7 * 32, 7 * 64, 7 * 96, 26 * 128}));
  EXPECT_EQ(sequence_lease(gemma, 8000, 8192, 0, true).own_pages(), 26 * 128);
}

TEST(LeaseShape, WithoutWindowsIsEveryPageOfTheLayersThatItHasAtOnce) {
  const ModelShape model{.num_layers = 26};
  EXPECT_EQ(sequence_lease(model, 1000, 2000, 0, true).own_pages(), 26 * 32);
  EXPECT_EQ(sequence_lease(model, 1000, 2000, 15, true).own_pages(), 26 * 17);
  EXPECT_EQ(rank_lease(model, {640, 1000}, 0, false).own_pages(), 7 * 16);
  EXPECT_EQ(rank_lease(model, {640, 1000}, 10, false).own_pages(), 7 * 6);
  EXPECT_EQ(rank_lease(model, {640, 1000}, 10, true).own_pages(), 26 * 6);
  EXPECT_FALSE(sequence_lease(model, 1000, 2000, 0, true).has_turned(31));
}

// A rank: whatever its chunk's tokens see is there, and of layers_at_once layers no page is another's.
TEST(LeaseShape, OfARankHasWhatItsTokensSeeAndNothingBefore) {
  SeededRng rng(1);
  for (int round = 0; round < 200; ++round) {
    const auto window = static_cast<int32_t>(1 + rng.next() % 300);
    const ModelShape model = model_of(static_cast<int32_t>(1 + rng.next() % 12), window);
    const auto begin = static_cast<int32_t>(kPageTokens * (rng.next() % 12));
    const TokenRange chunk{begin, begin + static_cast<int32_t>(1 + rng.next() % 400)};
    const LeaseShape shape = rank_lease(model, chunk, 0, rng.next() % 2 == 0);
    KvPool pool(64, shape.own_pages());
    const auto lease = *pool.lease(shape);
    EXPECT_EQ(pool.usage().free, 0);
    for (int32_t layer = 0; layer < model.num_layers; ++layer) {
      const int32_t reach = model.window(layer) > 0 ? std::max(0, begin - window + 1) / kPageTokens : 0;
      for (int32_t page = 0; page < pages_for(chunk.end); ++page) ASSERT_EQ(lease->has(layer, page), page >= reach);
    }
    std::set<const std::byte*> seen;
    size_t pages = 0;
    for (int32_t first = 0; first + shape.layers_at_once <= model.num_layers; ++first, seen.clear(), pages = 0) {
      for (int32_t layer = first; layer < first + shape.layers_at_once; ++layer)
        for (int32_t page = 0; page < pages_for(chunk.end); ++page)
          if (lease->has(layer, page)) seen.insert(lease->page(layer, page).data()), ++pages;
      ASSERT_EQ(seen.size(), pages) << "layers from " << first;
    }
  }
}

TEST(LeaseShapeDeathTest, APageOutOfReachCannotBeRead) {
  ModelShape model{.num_layers = 1, .windows = {100}};
  KvPool pool(64, 20);
  const auto rank = *pool.lease(rank_lease(model, {320, 400}, 0, true));
  EXPECT_DEATH(rank->page(0, 2), "out of its layer's reach");
  const auto sequence = *pool.lease(sequence_lease(model, 200, 1000, 0, false));
  EXPECT_DEATH(sequence->page(0, 4), "out of its layer's reach") << "nor one that the sequence has not reached";
  sequence->reach(4);
  sequence->page(0, 4);
  EXPECT_DEATH(sequence->page(0, 1), "out of its layer's reach");
}

// Of a layer with a window: what its newest token sees, wherever the sequence is; and never more than its share of the pool.
TEST(LeaseShape, OfASequenceAlwaysHasWhatItsNewestTokenSees) {
  SeededRng rng(2);
  for (int round = 0; round < 200; ++round) {
    const auto window = static_cast<int32_t>(1 + rng.next() % 300);
    const ModelShape model = model_of(3, window);
    const auto prompt = static_cast<int32_t>(1 + rng.next() % 700),
               tokens = prompt + 1 + static_cast<int32_t>(rng.next() % 900);
    const LeaseShape shape = sequence_lease(model, prompt, tokens, 0, rng.next() % 2 == 0);
    if (const bool keeps_prompt = shape.layers[0].end - shape.layers[0].turn > shape.layers[0].first; !keeps_prompt) {
      EXPECT_LE(shape.own_pages(), pages_for(tokens) + 2 * (window / kPageTokens + 2));
    }
    KvPool pool(64, shape.own_pages());
    const auto lease = *pool.lease(shape);
    std::map<const std::byte*, std::pair<int32_t, int32_t>> holds;
    for (int32_t position = prompt; position < tokens; ++position) {
      ASSERT_TRUE(lease->reach(position / kPageTokens));
      for (int32_t layer = 0; layer < 3; ++layer)
        for (int32_t page = first_page_in_reach(position, model.window(layer)); page <= position / kPageTokens;
             ++page) {
          const std::pair own{layer, page};
          const bool is_new = page == position / kPageTokens && position % kPageTokens == 0;
          auto& held = holds.try_emplace(lease->page(layer, page).data(), own).first->second;
          if (is_new) held = own;
          ASSERT_EQ(held, own) << "a page in reach is no other's";
        }
    }
    EXPECT_EQ(pool.usage().leased, shape.own_pages());
  }
}

// What others read while the sequence goes on is not written again, and comes back when all have let it go.
TEST(LeaseShape, PagesThatOthersReadDoNotTakeTurns) {
  const ModelShape model = model_of(3, 100);
  KvPool pool(64, 200);
  const LeaseShape shape = sequence_lease(model, 640, 1600, 0, /*keeps_prompt=*/true);
  auto first = *pool.lease(shape);
  auto prompt = pool.share(*first, 10);
  std::set<std::pair<int32_t, int32_t>> kept;
  std::map<std::pair<int32_t, int32_t>, const std::byte*> places;
  for (int32_t layer = 0; layer < 3; ++layer)
    for (int32_t page = 0; page < 10; ++page)
      if (prompt->has(layer, page)) places[{layer, page}] = prompt->page(layer, page).data();
  EXPECT_EQ(places.size(), size_t{10 + 2 * 2}) << "of windows of 100 tokens two pages";
  EXPECT_TRUE(prompt->has_beginning(model, 10));
  EXPECT_FALSE(prompt->has_beginning(model, 9));
  auto second = *pool.lease_behind(prompt, sequence_lease(model, 641, 1600, 10, false));
  for (int32_t page = 10; page < 25; ++page) {
    first->reach(page), second->reach(page);
    for (const auto& [at, place] : places) {
      ASSERT_EQ(prompt->page(at.first, at.second).data(), place);
      for (int32_t layer = 0; layer < 3; ++layer) {
        ASSERT_NE(first->page(layer, page).data(), place);
        ASSERT_NE(second->page(layer, page).data(), place);
        ASSERT_NE(second->page(layer, page).data(), first->page(layer, page).data());
      }
    }
  }
  EXPECT_EQ(pool.usage().leased, shape.own_pages() + 15 + 2 * 3);
  first.reset();
  EXPECT_EQ(pool.usage().leased, 10 + 2 * 2 + 15 + 2 * 3) << "what the second reads, and its own";
  second.reset();
  EXPECT_EQ(pool.usage().kept, 10 + 2 * 2);
  prompt.reset();
  EXPECT_EQ(pool.usage().free, 200);
}

// What an answer leaves is what a next turn sees that goes on behind it; who is asked for less, further back, has it no more.
TEST(LeaseShape, OfALongAnswerTheEndStays) {
  const ModelShape model = model_of(3, 200);
  const LeaseShape shape = sequence_lease(model, 100, 2000, 0, /*keeps_prompt=*/true);
  KvPool pool(64, shape.own_pages());
  for (const int32_t reached : {3, 5, 6, 12, 30}) {
    auto lease = *pool.lease(shape);
    ASSERT_TRUE(lease->reach(reached));
    EXPECT_EQ(lease->reach(4), reached < 6) << "of a window of 200 tokens five pages";
    auto kept = pool.share(*lease, reached);
    EXPECT_TRUE(kept->has_beginning(model, reached));
    for (int32_t columns = 0; columns < reached; ++columns)
      EXPECT_EQ(kept->has_beginning(model, columns), reached < 6 || columns <= 1) << reached << ", " << columns;
    EXPECT_EQ(shape.has_turned(reached), reached >= 6);
    int64_t counted = 0;
    for (int32_t page = 0; page < reached; ++page) counted += shape.layers_with(page, reached);
    lease.reset();
    EXPECT_EQ(pool.usage().kept, counted);
    EXPECT_EQ(pool.usage().free, pool.usage().total - counted);
  }
}

// Whatever is leased, shared, broken off and given back, by whomever: each page is in one state, and the pool's books are those
// of an oracle that looks at every lease.
TEST(LeaseShape, TheBooksOfAPoolAreRightAtAllTimes) {
  SeededRng rng(3);
  const ModelShape model = model_of(4, 150);
  KvPool pool(64, 300);
  struct Entry {
    std::shared_ptr<KvLease> lease;
    LeaseShape shape;
    bool is_kept = false, quarantined = false;
    int32_t page = 0;
  };
  std::vector<Entry> all;
  int refused = 0, behind = 0;
  for (int step = 0; step < 20000; ++step) {
    const auto pick = all.empty() ? 0 : rng.next() % all.size();
    const uint64_t what = rng.next() % 8;
    if (what < 3) {
      const auto prompt = static_cast<int32_t>(1 + rng.next() % 500),
                 tokens = prompt + 1 + static_cast<int32_t>(rng.next() % 600);
      const bool keeps = rng.next() % 2 == 0, is_last = rng.next() % 2 == 0;
      const bool shares =
          !all.empty() && all[pick].is_kept && all[pick].lease->num_pages() <= (prompt - 1) / kPageTokens;
      const int32_t shared = shares ? all[pick].lease->num_pages() : 0;
      LeaseShape shape = rng.next() % 2 == 0 ? sequence_lease(model, prompt, tokens, shared, keeps)
                                             : rank_lease(model, {shared * kPageTokens, prompt}, shared, is_last);
      const int64_t free = pool.usage().free;
      auto lease = shares ? pool.lease_behind(all[pick].lease, shape) : pool.lease(shape);
      ASSERT_EQ(lease.has_value(), shape.own_pages() <= free) << "not one page more than there are";
      refused += lease ? 0 : 1;
      behind += lease && shares ? 1 : 0;
      if (lease) all.push_back({*lease, shape, false, false, pages_for(prompt)});
    } else if (all.empty()) {
      continue;
    } else if (what < 5 && !all[pick].is_kept && all[pick].page + 1 < all[pick].shape.num_pages) {
      ASSERT_TRUE(all[pick].lease->reach(++all[pick].page));
    } else if (what == 5 && !all[pick].is_kept && all[pick].lease->layers_at_once() == 4 && all[pick].page > 1) {
      all.push_back({pool.share(*all[pick].lease, all[pick].page - 1), {}, true});
    } else if (what == 6 && !all[pick].is_kept) {
      all[pick].lease->mark_quarantined();
    } else {
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(pick));
    }
    std::map<const std::byte*, bool> places;  // and whether only keepers have it
    for (const Entry& entry : all)
      for (int32_t layer = 0; layer < 4; ++layer)
        for (int32_t page = 0; page < entry.lease->num_pages(); ++page)
          if (entry.lease->has(layer, page)) {
            auto& only_kept = places.try_emplace(entry.lease->page(layer, page).data(), true).first->second;
            only_kept = only_kept && entry.is_kept;
          }
    const KvPool::Usage& usage = pool.usage();
    ASSERT_EQ(usage.free + usage.kept + usage.leased + usage.quarantined, usage.total);
    ASSERT_EQ(usage.total - usage.free, std::ssize(places)) << step;
    ASSERT_EQ(usage.kept, std::ranges::count_if(places, [](const auto& place) { return place.second; })) << step;
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(behind, 100);
  all.clear();
  EXPECT_EQ(pool.usage().free, 300);
}

}  // namespace
}  // namespace runahead
