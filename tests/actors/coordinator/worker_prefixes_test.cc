#include "actors/coordinator/worker_prefixes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/limits.h"
#include "base/rng.h"

namespace runahead {
namespace {

using Keys = std::vector<PageKey>;

std::vector<TokenId> tokens(int32_t count, TokenId from = 0) {
  std::vector<TokenId> all;
  for (int32_t i = 0; i < count; ++i) all.push_back(from + i);
  return all;
}

AttemptId attempt(uint64_t request) { return {1, request, 1}; }

// Of one layer, so that a column is a page.
const LeaseShape kOneLayer = whole_lease(1, 64 * 1000);

// An attempt that begins behind `hit`, and leaves its pages under its own number.
void run(WorkerPrefixes& prefixes, uint64_t number, const Keys& keys, WorkerPrefixes::Hit hit = {}, bool kept = true) {
  prefixes.begin(attempt(number), {.hit = hit, .lease = kOneLayer, .keep = number, .keys = keys});
  prefixes.end(attempt(number), kept ? static_cast<int32_t>(keys.size()) : 0);
}

TEST(PageKeys, AreOfFullPagesAndSayAllThatIsBeforeThem) {
  EXPECT_TRUE(page_keys("", tokens(63)).empty());
  EXPECT_EQ(page_keys("", tokens(64)).size(), 1u);
  EXPECT_EQ(page_keys("", tokens(200)).size(), 3u);
  const Keys keys = page_keys("", tokens(256));
  EXPECT_EQ(page_keys("", tokens(191)), Keys(keys.begin(), keys.begin() + 2));
  std::vector<TokenId> other = tokens(256);
  other[70] += 1;
  const Keys others = page_keys("", other);
  EXPECT_EQ(others[0], keys[0]);
  for (size_t page = 1; page < 4; ++page) EXPECT_NE(others[page], keys[page]) << page;
  EXPECT_NE(page_keys("salt", tokens(64))[0], keys[0]);
  const std::vector<TokenId> twice(128, 5);
  EXPECT_NE(page_keys("", twice)[0], page_keys("", twice)[1]) << "the same page at another place is another one";
}

TEST(PageKeys, ThoseOfALongerPromptGoOnFromThoseOfAShorterOne) {
  Keys keys = page_keys("salt", tokens(200));
  extend_page_keys(keys, "salt", tokens(391));
  EXPECT_EQ(keys, page_keys("salt", tokens(391)));
  Keys none;
  extend_page_keys(none, "salt", tokens(391));
  EXPECT_EQ(none, keys);
}

// Of a model with windows: what is before the reach of the last rank's chunk is not there.
TEST(WorkerPrefixes, WhatLacksItsBeginningIsFoundFromSomeColumnOnOnly) {
  WorkerPrefixes prefixes;
  const Keys keys = page_keys("", tokens(640));
  prefixes.begin(attempt(1), {.lease = kOneLayer, .keep = 1, .keys = keys, .least = 6});
  prefixes.end(attempt(1), 10);
  EXPECT_EQ(prefixes.find(keys, 5).columns, 0);
  EXPECT_EQ(prefixes.find(keys, 6).columns, 6);
  EXPECT_EQ(prefixes.find(keys, 10).columns, 10);
  EXPECT_EQ(prefixes.least_of({.prefix = 1, .columns = 8}), 6);
  EXPECT_EQ(prefixes.least_of({}), 0);
  // A shorter one that has its beginning is worth keeping beside it.
  run(prefixes, 2, Keys(keys.begin(), keys.begin() + 4));
  EXPECT_EQ(prefixes.find(keys, 5).columns, 4);
  prefixes.begin(attempt(3), {.lease = kOneLayer, .keep = 3, .keys = page_keys("", tokens(704)), .least = 8});
  prefixes.end(attempt(3), 11);
  EXPECT_EQ(prefixes.find(keys, 10).columns, 10);
  EXPECT_EQ(prefixes.find(keys, 7).columns, 7) << "of the first";
  EXPECT_EQ(prefixes.find(keys, 5).columns, 4) << "of the second";
}

// An answer: its keys come while it is made, and the worker keeps what is full of it.
TEST(WorkerPrefixes, WhatIsKeptOfAnAnswerIsKnownWhenItHasEnded) {
  WorkerPrefixes prefixes;
  const Keys prompt = page_keys("", tokens(128)), whole = page_keys("", tokens(640));
  prefixes.begin(attempt(1), {.lease = kOneLayer, .keep = 1});
  prefixes.set_keys(attempt(1), whole);
  prefixes.end(attempt(1), 9);
  EXPECT_EQ(prefixes.find(whole, 100).columns, 9) << "the last page has a token that was no input";
  EXPECT_EQ(prefixes.pages(), 9);
  prefixes.begin(attempt(2), {.hit = prefixes.find(prompt, 1), .lease = kOneLayer, .keep = 2});
  prefixes.end(attempt(2), 3);
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{2}) << "kept under keys that nobody knows";
  prefixes.begin(attempt(3), {.lease = kOneLayer, .keep = 3});
  prefixes.set_keys(attempt(3), page_keys("other", tokens(128)));
  prefixes.end(attempt(3), -1);
  prefixes.set_keys(attempt(3), whole);
  EXPECT_EQ(prefixes.find(page_keys("other", tokens(128)), 2).columns, 0);
  EXPECT_EQ(prefixes.pages(), 9);
}

// The pages of its prompt are others' too while it goes on, and stay when it is broken off.
TEST(WorkerPrefixes, WhatIsKeptOfAPromptIsReadByWhoeverMadeIt) {
  WorkerPrefixes prefixes;
  const Keys prompt = page_keys("", tokens(640)), whole = page_keys("", tokens(768));
  prefixes.begin(attempt(1), {.lease = kOneLayer, .keep = 2, .keep_prompt = 1, .prompt_keys = prompt});
  EXPECT_EQ(prefixes.keep_prompt(attempt(1), 10), 10);
  EXPECT_EQ(prefixes.keep_prompt(attempt(1), 10), 0) << "once";
  EXPECT_EQ(prefixes.pages(), 10);
  EXPECT_EQ(prefixes.pages_in_use(), 10);
  EXPECT_FALSE(prefixes.drop_oldest()) << "nothing would be free";
  const WorkerPrefixes::Hit hit = prefixes.find(prompt, 9);
  EXPECT_EQ(hit.prefix, 1u);
  EXPECT_EQ(prefixes.pages_idle(hit), 0);
  prefixes.begin(attempt(3), {.hit = hit, .lease = kOneLayer, .keep = 4, .keep_prompt = 3, .prompt_keys = prompt});
  EXPECT_EQ(prefixes.keep_prompt(attempt(3), 10), 0) << "the same, which is there";
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{3});
  prefixes.set_keys(attempt(1), whole);
  prefixes.end(attempt(1), 12);
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{1}) << "now the beginning of prompt and answer";
  EXPECT_EQ(prefixes.pages(), 12);
  EXPECT_EQ(prefixes.pages_in_use(), 9);
  prefixes.end(attempt(3), 0);
  EXPECT_EQ(prefixes.pages_in_use(), 0);
  EXPECT_EQ(prefixes.find(whole, 20).columns, 12);

  prefixes.begin(attempt(5), {.lease = kOneLayer, .keep_prompt = 5, .prompt_keys = page_keys("other", tokens(640))});
  EXPECT_EQ(prefixes.keep_prompt(attempt(5), 9), 0) << "not what it was told";
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{5});
  prefixes.begin(attempt(6),
                 {.hit = {2, 4}, .lease = kOneLayer, .keep_prompt = 6, .prompt_keys = page_keys("other", tokens(640))});
  EXPECT_EQ(prefixes.keep_prompt(attempt(6), 0), 0) << "it has no room to remember it";
  EXPECT_EQ(prefixes.keep_prompt(attempt(7), 3), 0) << "nobody";
  prefixes.end(attempt(5), 0);
  prefixes.end(attempt(6), 0);
  EXPECT_EQ(prefixes.pages(), 12);
}

TEST(WorkerPrefixes, TheLongestCommonBeginningIsFound) {
  WorkerPrefixes prefixes;
  const Keys document = page_keys("", tokens(640));
  EXPECT_EQ(prefixes.find(document, 10).columns, 0);
  run(prefixes, 1, document, {}, /*kept=*/false);
  EXPECT_EQ(prefixes.find(document, 10).columns, 0) << "the worker did not keep it";
  run(prefixes, 2, document);
  EXPECT_EQ(prefixes.pages(), 10);
  std::vector<TokenId> question = tokens(640);
  question[400] = 0;
  const WorkerPrefixes::Hit hit = prefixes.find(page_keys("", question), 10);
  EXPECT_EQ(hit.prefix, 2u);
  EXPECT_EQ(hit.columns, 6);
  EXPECT_EQ(prefixes.find(page_keys("", question), 4).columns, 4);
  EXPECT_EQ(prefixes.find(page_keys("", tokens(640, 1)), 10).columns, 0);
  EXPECT_EQ(prefixes.find(Keys(document.begin(), document.begin() + 3), 10).columns, 3);
}

TEST(WorkerPrefixes, SharedColumnsCountOnceAndGoWithTheLastThatHasThem) {
  WorkerPrefixes prefixes;
  std::vector<TokenId> left = tokens(640), right = tokens(640);
  left[600] = 0, right[600] = 1;
  run(prefixes, 1, page_keys("", left));
  run(prefixes, 2, page_keys("", right), {1, 9});
  EXPECT_EQ(prefixes.pages(), 11);
  EXPECT_TRUE(prefixes.take_dropped().empty());
  prefixes.begin(attempt(3), {.hit = {2, 9}});
  EXPECT_EQ(prefixes.pages_in_use(), 9);
  EXPECT_TRUE(prefixes.drop_oldest());
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{1});
  EXPECT_EQ(prefixes.pages(), 10);
  EXPECT_TRUE(prefixes.drop_oldest());
  EXPECT_FALSE(prefixes.drop_oldest());
  EXPECT_EQ(prefixes.pages(), 9) << "an attempt reads them";
  prefixes.end(attempt(3), 0);
  EXPECT_EQ(prefixes.pages(), 0);
  EXPECT_EQ(prefixes.pages_in_use(), 0);
}

// A conversation: each prompt is the beginning of the next.
TEST(WorkerPrefixes, WhatIsOnlyTheBeginningOfAnotherIsDropped) {
  WorkerPrefixes prefixes;
  run(prefixes, 1, page_keys("", tokens(320)));
  run(prefixes, 2, page_keys("", tokens(640)), {1, 5});
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{1});
  EXPECT_EQ(prefixes.pages(), 10);
  run(prefixes, 3, page_keys("", tokens(640)));
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{3}) << "two had computed the same at once";
  EXPECT_EQ(prefixes.pages(), 10);
  run(prefixes, 4, page_keys("", tokens(320)));
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{4});
}

TEST(WorkerPrefixes, TheOneThatWasNotUsedForLongestGoesFirst) {
  WorkerPrefixes prefixes;
  for (uint64_t id : {1, 2, 3}) run(prefixes, id, page_keys("", tokens(64, static_cast<TokenId>(1000 * id))));
  prefixes.begin(attempt(9), {.hit = {1, 1}});
  prefixes.end(attempt(9), 0);
  while (prefixes.drop_oldest()) {
  }
  EXPECT_EQ(prefixes.take_dropped(), (std::vector<uint64_t>{2, 3, 1}));
  run(prefixes, 4, page_keys("", tokens(64)));
  prefixes.forget(4);
  EXPECT_EQ(prefixes.take_dropped(), std::vector<uint64_t>{4});
  EXPECT_EQ(prefixes.pages(), 0);
  for (uint64_t id = 10; id < 10 + limits::kKeptPrefixesMax + 5; ++id)
    run(prefixes, id, page_keys("", tokens(64, static_cast<TokenId>(id * 100))));
  EXPECT_EQ(prefixes.pages(), static_cast<int64_t>(limits::kKeptPrefixesMax));
  EXPECT_EQ(prefixes.take_dropped().size(), 5u);
}

// Whatever is asked, columns are those that kept prefixes and attempts have, and none twice.
TEST(WorkerPrefixes, TheLedgerIsThatOfAnOracle) {
  constexpr uint64_t kPrompt = 1'000'000;  // added to the numbers under which prompts are kept
  SeededRng rng(5);
  WorkerPrefixes prefixes;
  std::map<uint64_t, std::set<std::pair<uint64_t, int32_t>>> kept, running;  // (who made it, which)
  std::map<uint64_t, WorkerPrefixes::Claim> claims;
  std::map<uint64_t, std::vector<std::pair<uint64_t, int32_t>>> columns_of;
  int prompts_kept = 0;
  const auto count = [](const auto& owners) {
    std::set<std::pair<uint64_t, int32_t>> all;
    for (const auto& [id, columns] : owners) all.insert(columns.begin(), columns.end());
    return all;
  };
  const auto learn_drops = [&] {
    for (const uint64_t id : prefixes.take_dropped()) kept.erase(id);
  };
  for (uint64_t step = 1; step < 3000; ++step) {
    if (running.size() < 4 && rng.next() % 2 == 0) {
      std::vector<TokenId> prompt(64 * (1 + rng.next() % 6), static_cast<TokenId>(rng.next() % 3));
      prompt[rng.next() % prompt.size()] = 9;
      const Keys keys = page_keys("", prompt);
      WorkerPrefixes::Claim claim{
          .lease = kOneLayer, .keep = step, .keys = keys, .keep_prompt = kPrompt + step, .prompt_keys = keys};
      claim.prompt_keys.resize(1 + rng.next() % keys.size());
      if (rng.next() % 4 != 0) claim.hit = prefixes.find(keys, static_cast<int32_t>(keys.size()) - 1);
      auto& mine = columns_of[step];
      if (claim.hit.columns > 0) {
        const auto& from = columns_of.at(claim.hit.prefix % kPrompt);
        mine.assign(from.begin(), from.begin() + claim.hit.columns);
      }
      running[step] = {mine.begin(), mine.end()};
      prefixes.begin(attempt(step), claim);
      claims.emplace(step, claim);
    } else if (!running.empty() && rng.next() % 3 == 0) {
      auto it = running.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(rng.next() % running.size()));
      const uint64_t id = it->first;
      const size_t columns = std::exchange(claims[id].prompt_keys, {}).size();
      auto& mine = columns_of[id];
      if (columns <= mine.size()) continue;  // it is not told to, then
      const size_t before = mine.size();
      const int64_t made = prefixes.keep_prompt(attempt(id), static_cast<int32_t>(columns));
      if (made > 0) {
        for (int32_t i = 0; mine.size() < columns; ++i) mine.emplace_back(id, i);
        kept[kPrompt + id] = it->second = {mine.begin(), mine.end()};
        ++prompts_kept;
      }
      ASSERT_EQ(made, made > 0 ? static_cast<int64_t>(columns - before) : 0) << step;
      learn_drops();
    } else if (!running.empty() && rng.next() % 3 != 0) {
      auto it = running.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(rng.next() % running.size()));
      const uint64_t id = it->first;
      running.erase(it);
      const bool is_kept = rng.next() % 5 != 0;
      if (is_kept) {
        auto& mine = columns_of[id];
        for (int32_t i = 100; std::ssize(mine) < std::ssize(claims[id].keys); ++i) mine.emplace_back(id, i);
        kept[id] = {mine.begin(), mine.end()};
      }
      prefixes.end(attempt(id), is_kept ? static_cast<int32_t>(claims[id].keys.size()) : 0);
      learn_drops();
    } else if (rng.next() % 8 == 0) {
      prefixes.drop_oldest();
      learn_drops();
    }
    std::set<std::pair<uint64_t, int32_t>> all = count(kept), read = count(running);
    ASSERT_EQ(prefixes.pages_in_use(), std::ssize(read)) << step;
    all.insert(read.begin(), read.end());
    ASSERT_EQ(prefixes.pages(), std::ssize(all)) << step;
  }
  EXPECT_GT(prompts_kept, 100);
}

}  // namespace
}  // namespace runahead
