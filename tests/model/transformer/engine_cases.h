// A prompt through an engine as the ranks of a chain take it, cut by chance into chunks, calls and batches.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/rng.h"
#include "model/transformer/prefill.h"

namespace runahead::test {

struct Outcome {
  std::vector<float> logits;                  // of the prompt's last token
  std::vector<std::vector<float>> decoded;    // of each decode step
  std::vector<std::vector<std::byte>> pages;  // all layers, after the prompt
};

class Case {
 public:
  explicit Case(uint64_t seed) : rng_(seed) {}
  int32_t below(int32_t n) { return static_cast<int32_t>(rng_.next() % static_cast<uint64_t>(n)); }
  // Increasing multiples of the page length inside (0, tokens).
  std::vector<int32_t> cuts(int32_t tokens) {
    std::vector<int32_t> result;
    for (int32_t at = kPageTokens; at < tokens; at += kPageTokens)
      if (below(3) == 0) result.push_back(at);
    return result;
  }

 private:
  SeededRng rng_;
};

inline std::vector<TokenId> prompt_of(Case& c, int32_t tokens, int32_t vocab) {
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < tokens; ++i) prompt.push_back(c.below(vocab));
  return prompt;
}

// Rows cut into calls by chance: anywhere, or between tiles only.
inline std::vector<RowRange> cut_rows(int32_t rows, int32_t unit, Case& c) {
  std::vector<RowRange> parts;
  for (int32_t begin = 0; begin < rows; begin = parts.back().end)
    parts.push_back({begin, std::min(rows, begin + unit * (1 + c.below(1 + rows / unit)))});
  return parts;
}

// One rank of a chain, in this process: pages before `chunk` are in the lease already.
inline std::unique_ptr<Hidden> run_chunk(Engine& engine, KvLease& kv, std::span<const TokenId> prompt, TokenRange chunk,
                                         bool last, Case& c) {
  std::unique_ptr<Hidden> x =
      engine.embed(prompt.subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size())));
  for (int32_t layer = 0; layer < engine.shape().num_layers; ++layer) {
    for (const RowRange part : cut_rows(chunk.size(), 1, c)) engine.project_qkv(layer, *x, kv, chunk, part);
    const bool final_layer = layer + 1 == engine.shape().num_layers;
    if (final_layer && !last) break;
    int32_t rows = chunk.size();
    if (final_layer && c.below(2) == 0) {
      engine.keep_last_row(*x);
      rows = 1;
    }
    for (int32_t page = 0; page < chunk.end_page();) {
      const int32_t end = std::min(chunk.end_page(), page + 1 + c.below(4));
      for (const RowRange part : cut_rows(rows, kPageTokens, c)) engine.attend(layer, *x, kv, chunk, {page, end}, part);
      page = end;
    }
    for (const RowRange part : cut_rows(rows, 1, c)) engine.finish_layer(layer, *x, part);
  }
  return x;
}

inline std::vector<std::vector<std::byte>> copy_pages(const KvLease& kv) {
  std::vector<std::vector<std::byte>> pages;
  for (int32_t layer = 0; layer < kv.num_layers(); ++layer)
    for (int32_t p = 0; p < kv.num_pages(); ++p) pages.emplace_back(kv.page(layer, p).begin(), kv.page(layer, p).end());
  return pages;
}

// Of every layer, those that no token from `position` on sees: whatever reads them is found out.
inline void spoil_pages_out_of_reach(const Engine& engine, KvLease& kv, int32_t position) {
  for (int32_t layer = 0; layer < kv.num_layers(); ++layer)
    for (int32_t p = 0; p < first_page_in_reach(position, engine.shape().window(layer)); ++p)
      std::ranges::fill(kv.page(layer, p), std::byte{0xFF});
}

inline Outcome run_case(Engine& engine, const std::vector<TokenId>& prompt, const std::vector<TokenId>& continuation,
                        const std::vector<int32_t>& cuts, int32_t mates, Case& c) {
  const auto tokens = static_cast<int32_t>(prompt.size()), more = static_cast<int32_t>(continuation.size());
  SequenceCache cache(engine, tokens + more, 1 + mates);
  auto kv = *cache.lease(tokens + more);
  Outcome outcome;
  outcome.logits.resize(static_cast<size_t>(engine.shape().vocab_size));
  std::vector<int32_t> ends = cuts;
  ends.push_back(tokens);
  int32_t begin = 0;
  for (int32_t end : ends) {
    const std::unique_ptr<Hidden> x = run_chunk(engine, *kv, prompt, {begin, end}, end == tokens, c);
    if (end == tokens) engine.logits(*x, outcome.logits);
    begin = end;
  }
  outcome.pages = copy_pages(*kv);

  // Mates decode other tokens at other positions beside ours; ours is at a random place of the batch.
  std::vector<std::shared_ptr<KvLease>> mate_kv;
  for (int32_t m = 0; m < mates; ++m) mate_kv.push_back(*cache.lease(tokens + more));
  for (int32_t step = 0; step < more; ++step) {
    std::vector<DecodeRow> batch;
    for (int32_t m = 0; m < mates; ++m)
      batch.push_back({mate_kv[static_cast<size_t>(m)].get(), c.below(engine.shape().vocab_size), step});
    const int32_t place = c.below(mates + 1);
    batch.insert(batch.begin() + place, {kv.get(), continuation[static_cast<size_t>(step)], tokens + step});
    std::vector<float> out(batch.size() * outcome.logits.size());
    engine.decode(batch, out);
    const auto* mine = out.data() + static_cast<size_t>(place) * outcome.logits.size();
    outcome.decoded.emplace_back(mine, mine + outcome.logits.size());
  }
  return outcome;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace runahead::test
