#include "hash_engine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "model/sampler.h"

namespace runahead::test {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15ull ^ b;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9ull;
  return x ^ (x >> 32);
}

// Row x of a token enters layer 0 as its token; position makes equal tokens unlike.
uint64_t embed_one(TokenId token) { return mix(0xE3BED, static_cast<uint64_t>(token)); }
uint64_t kv_of(int32_t layer, int32_t position, uint64_t x) {
  return mix(mix(static_cast<uint64_t>(layer) + 1, static_cast<uint64_t>(position)), x) |
         1;  // never 0: 0 is "unwritten"
}
uint64_t fold(uint64_t state, uint64_t kv) { return mix(state + 0x5EED, kv); }

void fill_logits(uint64_t x, std::span<float> out) {
  RUNAHEAD_CHECK(out.size() == kHashVocab, "logits have the vocabulary's size");
  for (size_t v = 0; v < out.size(); ++v) out[v] = static_cast<float>(mix(x, v) >> 40) * 0x1.0p-22f;  // [0, 4)
}

uint64_t load(std::span<const std::byte> page, int32_t slot) {
  uint64_t value;
  std::memcpy(&value, page.data() + static_cast<size_t>(slot) * sizeof value, sizeof value);
  return value;
}
void store(std::span<std::byte> page, int32_t slot, uint64_t value) {
  std::memcpy(page.data() + static_cast<size_t>(slot) * sizeof value, &value, sizeof value);
}

struct HashHidden final : Hidden {
  std::vector<uint64_t> rows;      // x of each token of the chunk
  int32_t first = 0;               // rows[0] is row `first` of the chunk: not 0 after keep_last_row
  struct Tile {                    // a page's worth of rows
    uint64_t state = 0;            // over all K/V attended so far in this layer
    int32_t next_page = 0;         // the page that attend() must take next
  };
  std::vector<Tile> tiles;
  int32_t end_page = 0;            // of the chunk
  int32_t projected = 0;           // rows of this layer
  std::vector<uint64_t> attended;  // state of each row when its own position was reached
};

HashHidden& hidden(Hidden& x) { return static_cast<HashHidden&>(x); }

constexpr int32_t kWindowedLayer = 1;
thread_local int32_t hash_window = 0;

std::vector<int32_t> hash_windows() {
  std::vector<int32_t> windows(kHashLayers);
  windows[kWindowedLayer] = hash_window;
  return hash_window > 0 ? windows : std::vector<int32_t>();
}

}  // namespace

HashWindow::HashWindow(int32_t tokens) : before_(std::exchange(hash_window, tokens)) {}
HashWindow::~HashWindow() { hash_window = before_; }

HashEngine::HashEngine() {
  shape_ = {.architecture = "hash",
            .num_layers = kHashLayers,
            .model_dim = 1,
            .num_heads = 1,
            .num_kv_heads = 1,
            .head_dim = 1,
            .ffn_dim = 4,
            .vocab_size = kHashVocab,
            .context_len = kHashContextLen,
            .windows = hash_windows()};
}

// The state of a token of a layer with a window, of its pages alone.
uint64_t HashEngine::last_in_window(const KvLease& kv, int32_t layer, int32_t position) const {
  uint64_t state = 0;
  for (int32_t at = std::max(0, position - shape_.window(layer) + 1); at <= position; ++at)
    state = fold(state, load(kv.page(layer, at / kPageTokens), at % kPageTokens));
  return state;
}

std::unique_ptr<Hidden> HashEngine::embed(std::span<const TokenId> tokens) {
  auto x = std::make_unique<HashHidden>();
  for (TokenId token : tokens) x->rows.push_back(embed_one(token));
  return x;
}

void HashEngine::project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) {
  HashHidden& h = hidden(x);
  RUNAHEAD_CHECK(h.first == 0 && h.rows.size() == static_cast<size_t>(chunk.size()), "one row a token");
  if (rows.begin == 0) {
    h.projected = 0;
    h.end_page = chunk.end_page();
    h.tiles.assign(static_cast<size_t>(pages_for(chunk.size())), {});
    h.attended.assign(h.rows.size(), 0);
  }
  RUNAHEAD_CHECK(rows.begin == h.projected && rows.end > rows.begin && rows.end <= chunk.size(),
                 "each row once, in order");
  for (int32_t position = chunk.begin + rows.begin; position < chunk.begin + rows.end; ++position)
    store(kv.page(layer, position / kPageTokens), position % kPageTokens,
          kv_of(layer, position, h.rows[static_cast<size_t>(position - chunk.begin)]));
  h.projected = rows.end;
}

void HashEngine::keep_last_row(Hidden& x) {
  HashHidden& h = hidden(x);
  h.first += static_cast<int32_t>(h.rows.size()) - 1;
  h.rows = {h.rows.back()};
  h.attended = {0};
  h.tiles.resize(1);
}

void HashEngine::attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) {
  HashHidden& h = hidden(x);
  RUNAHEAD_CHECK(h.projected == chunk.size(), "all rows are projected before one attends");
  RUNAHEAD_CHECK(rows.begin % kPageTokens == 0 && rows.end > rows.begin && rows.end <= std::ssize(h.rows),
                 "whole tiles");
  for (int32_t begin = rows.begin; begin < rows.end; begin += kPageTokens) {
    HashHidden::Tile& tile = h.tiles[static_cast<size_t>(begin / kPageTokens)];
    RUNAHEAD_CHECK(pages.begin == tile.next_page && pages.end > pages.begin && pages.end <= chunk.end_page(),
                   "pages are attended once, in ascending order");
    tile.next_page = pages.end;
    const int32_t end = std::min(begin + kPageTokens, static_cast<int32_t>(std::ssize(h.rows)));
    for (int32_t position = pages.begin * kPageTokens; position < std::min(pages.end * kPageTokens, chunk.end);
         ++position) {
      const int32_t row = position - chunk.begin - h.first;
      const bool is_own = row >= begin && row < end;
      if (shape_.window(layer) > 0) {
        if (is_own) h.attended[static_cast<size_t>(row)] = last_in_window(kv, layer, position);
        continue;
      }
      tile.state = fold(tile.state, load(kv.page(layer, position / kPageTokens), position % kPageTokens));
      if (is_own) h.attended[static_cast<size_t>(row)] = tile.state;
    }
  }
}

void HashEngine::finish_layer(int32_t layer, Hidden& x, RowRange rows) {
  HashHidden& h = hidden(x);
  for (int32_t row = rows.begin; row < rows.end; ++row) {
    RUNAHEAD_CHECK(h.tiles[static_cast<size_t>(row / kPageTokens)].next_page == h.end_page, "every page was attended");
    uint64_t& value = h.rows[static_cast<size_t>(row)];
    value = mix(mix(value, h.attended[static_cast<size_t>(row)]), static_cast<uint64_t>(layer));
  }
}

void HashEngine::logits(Hidden& x, std::span<float> out) { fill_logits(hidden(x).rows.back(), out); }

Result<void> HashEngine::score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                                    std::span<SampledToken> out) {
  const HashHidden& h = hidden(x);
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.end <= std::ssize(h.rows) && h.first == 0, "every row was kept");
  std::vector<float> logits(kHashVocab);
  for (int32_t row = rows.begin; row < rows.end; ++row) {
    fill_logits(h.rows[static_cast<size_t>(row)], logits);
    const auto i = static_cast<size_t>(row - rows.begin);
    out[i] = TRY(score(logits, next[i], top));
  }
  return {};
}

void HashEngine::decode(std::span<const DecodeRow> batch, std::span<float> out) {
  for (size_t i = 0; i < batch.size(); ++i) {
    const DecodeRow& row = batch[i];
    uint64_t x = embed_one(row.token);
    for (int32_t layer = 0; layer < kHashLayers; ++layer) {
      store(row.kv->page(layer, row.position / kPageTokens), row.position % kPageTokens, kv_of(layer, row.position, x));
      uint64_t state = 0;
      if (shape_.window(layer) > 0) state = last_in_window(*row.kv, layer, row.position);
      else
        for (int32_t position = 0; position <= row.position; ++position)
          state = fold(state, load(row.kv->page(layer, position / kPageTokens), position % kPageTokens));
      x = mix(mix(x, state), static_cast<uint64_t>(layer));
    }
    fill_logits(x, out.subspan(i * kHashVocab, kHashVocab));
  }
}

std::shared_ptr<const grammar::TokenTree> hash_token_tree() {
  std::vector<std::string> bytes;
  for (int32_t token = 0; token < kHashVocab; ++token) bytes.emplace_back(1, static_cast<char>(token));
  return std::make_shared<grammar::TokenTree>(std::move(bytes), std::vector<TokenId>{kHashEnd});
}

std::vector<float> hash_logits(std::span<const TokenId> context) {
  std::vector<uint64_t> rows;
  for (TokenId token : context) rows.push_back(embed_one(token));
  for (int32_t layer = 0; layer < kHashLayers; ++layer) {
    uint64_t state = 0;
    std::vector<uint64_t> kv;
    const auto window = static_cast<size_t>(layer == kWindowedLayer ? hash_window : 0);
    for (size_t position = 0; position < rows.size(); ++position) {
      kv.push_back(kv_of(layer, static_cast<int32_t>(position), rows[position]));
      if (window > 0) {
        state = 0;
        for (size_t at = kv.size() > window ? kv.size() - window : 0; at < kv.size(); ++at) state = fold(state, kv[at]);
      } else {
        state = fold(state, kv.back());
      }
      rows[position] = mix(mix(rows[position], state), static_cast<uint64_t>(layer));
    }
  }
  std::vector<float> out(kHashVocab);
  fill_logits(rows.back(), out);
  return out;
}

}  // namespace runahead::test
