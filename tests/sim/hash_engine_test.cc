#include "hash_engine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "prng.h"

namespace runahead::test {
namespace {

std::vector<TokenId> random_tokens(Prng& rng, int64_t count) {
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(rng.below(kHashVocab)));
  return tokens;
}

// One rank after the other, pages of the prefix taken over from `all`.
std::vector<float> chain_logits(HashEngine& engine, KvLease& all, std::span<const TokenId> tokens,
                                std::span<const int32_t> cuts, Prng& rng) {
  std::vector<float> out(kHashVocab);
  for (size_t rank = 0; rank + 1 < cuts.size(); ++rank) {
    const TokenRange chunk{cuts[rank], cuts[rank + 1]};
    const bool last = rank + 2 == cuts.size();
    auto x = engine.embed(tokens.subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size())));
    for (int32_t layer = 0; layer < kHashLayers; ++layer) {
      RowRange rows{0, chunk.size()};
      const auto middle = static_cast<int32_t>(rng.between(1, rows.end));  // in one call, or in two
      engine.project_qkv(layer, *x, all, chunk, {0, middle});
      if (middle < rows.end) engine.project_qkv(layer, *x, all, chunk, {middle, rows.end});
      if (layer + 1 == kHashLayers && !last) break;
      if (layer + 1 == kHashLayers) {
        engine.keep_last_row(*x);
        rows = {0, 1};
      }
      for (int32_t page = 0; page < chunk.end_page();) {
        const auto end = static_cast<int32_t>(rng.between(page + 1, chunk.end_page()));
        const int32_t tiles = rows.end / kPageTokens * kPageTokens;
        if (tiles > 0) engine.attend(layer, *x, all, chunk, {page, end}, {0, tiles});
        if (tiles < rows.end) engine.attend(layer, *x, all, chunk, {page, end}, {tiles, rows.end});
        page = end;
      }
      engine.finish_layer(layer, *x, rows);
    }
    if (last) engine.logits(*x, out);
  }
  return out;
}

TEST(HashEngine, AnyPartitionGivesTheOraclesLogits) {
  Prng rng(1);
  HashEngine engine;
  KvPool pool(engine.page_bytes(), 64);
  for (int round = 0; round < 100; ++round) {
    const std::vector<TokenId> tokens = random_tokens(rng, rng.between(1, 500));
    const auto length = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> cuts = {0};
    for (int32_t cut = kPageTokens; cut < length; cut += kPageTokens)
      if (rng.chance(0.4)) cuts.push_back(cut);
    cuts.push_back(length);
    const auto kv = *pool.lease(kHashLayers, length);
    EXPECT_EQ(chain_logits(engine, *kv, tokens, cuts, rng), hash_logits(tokens));
  }
}

TEST(HashEngine, DecodeContinuesAsTheOracleDoes) {
  Prng rng(2);
  HashEngine engine;
  KvPool pool(engine.page_bytes(), 64);
  for (int round = 0; round < 30; ++round) {
    std::vector<TokenId> tokens = random_tokens(rng, rng.between(1, 200));
    const auto kv = *pool.lease(kHashLayers, static_cast<int32_t>(tokens.size()) + 70);
    const int32_t cuts[] = {0, static_cast<int32_t>(tokens.size())};
    chain_logits(engine, *kv, tokens, cuts, rng);
    for (int step = 0; step < 70; ++step) {
      const auto token = static_cast<TokenId>(rng.below(kHashVocab));
      const DecodeRow row{.kv = kv.get(), .token = token, .position = static_cast<int32_t>(tokens.size())};
      std::vector<float> out(kHashVocab);
      engine.decode(std::span(&row, 1), out);
      tokens.push_back(token);
      ASSERT_EQ(out, hash_logits(tokens));
    }
  }
}

// The reason for its being: whatever is wrong with any one page of the prefix, the logits show it.
TEST(HashEngine, AMissingWrongStaleOrSwappedPageChangesTheLogits) {
  Prng rng(3);
  HashEngine engine;
  KvPool pool(engine.page_bytes(), 128);
  const std::vector<TokenId> tokens = random_tokens(rng, 400);
  const auto kv = *pool.lease(kHashLayers, 401);
  const int32_t cuts[] = {0, 400};
  chain_logits(engine, *kv, tokens, cuts, rng);
  auto next = [&] {
    const DecodeRow row{.kv = kv.get(), .token = 5, .position = 400};
    std::vector<float> out(kHashVocab);
    engine.decode(std::span(&row, 1), out);
    return out;
  };
  const std::vector<float> right = next();
  for (int32_t layer = 0; layer < kHashLayers; ++layer) {
    for (int32_t page = 0; page + 1 < 6; ++page) {
      const auto bytes = kv->page(layer, page), other = kv->page(layer, page + 1);
      const std::vector<std::byte> saved(bytes.begin(), bytes.end()), saved_other(other.begin(), other.end());
      auto restore = [&] {
        std::ranges::copy(saved, bytes.begin());
        std::ranges::copy(saved_other, other.begin());
      };
      std::ranges::fill(bytes, std::byte(0));  // missing
      EXPECT_NE(next(), right);
      restore();
      bytes[rng.below(bytes.size())] ^= std::byte(1);  // one bit
      EXPECT_NE(next(), right);
      restore();
      std::ranges::swap_ranges(bytes, other);  // in the wrong place
      EXPECT_NE(next(), right);
      restore();
    }
  }
  EXPECT_EQ(next(), right);
}

}  // namespace
}  // namespace runahead::test
