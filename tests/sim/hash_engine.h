// HashEngine: the stand-in model of the simulation. K/V of a token in a layer is a hash of everything it depends on
// (its token, its position, every K/V before it in the layer below), so that a missing, wrong, stale or reordered page
// changes every later token. Same protocol as the real engine (model/engine.h); hash_tokens is its oracle, written
// without pages.
//   window  of the middle layer, if a test sets one (HashWindow): a token's hash is of the last K/V there, and no other
//           page is read.
//   page    64 x 8 bytes: one hash a token. Unwritten slots are zero.
//   checks  attend() in the wrong order, twice, or with pages left out dies: that is a bug of the actor, not of a
//   network.
#pragma once

#include <vector>

#include "model/engine.h"
#include "model/grammar/token_masks.h"

namespace runahead::test {

inline constexpr int32_t kHashLayers = 3;
inline constexpr int32_t kHashVocab = 128;
inline constexpr TokenId kHashEnd =
    0;  // of answers that keep to a grammar; all others are the ASCII character of their number
inline constexpr int32_t kHashContextLen = 2048;
inline constexpr size_t kHashPageBytes = kPageTokens * sizeof(uint64_t);

// While it lives, the engines that are made on this thread have this window, 0 for none, and so has hash_logits.
class HashWindow {
 public:
  explicit HashWindow(int32_t tokens);
  ~HashWindow();
  HashWindow(const HashWindow&) = delete;
  HashWindow& operator=(const HashWindow&) = delete;

 private:
  int32_t before_;
};

class HashEngine final : public Engine {
 public:
  HashEngine();
  const ModelShape& shape() const override { return shape_; }
  size_t page_bytes() const override { return kHashPageBytes; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& compute_name() const override { return compute_name_; }

  int32_t rows_at_once() const override { return kPageTokens; }  // so that chunks are cut into several calls
  std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) override;
  void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) override;
  void keep_last_row(Hidden& x) override;
  void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) override;
  void finish_layer(int32_t layer, Hidden& x, RowRange rows) override;
  void logits(Hidden& x, std::span<float> out) override;
  Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                          std::span<SampledToken> out) override;
  void decode(std::span<const DecodeRow> batch, std::span<float> out) override;

 private:
  uint64_t last_in_window(const KvLease& kv, int32_t layer, int32_t position) const;

  ModelShape shape_;
  std::string fingerprint_ = "hash-engine/1";
  std::string compute_name_ = "hash";
};

std::shared_ptr<const grammar::TokenTree> hash_token_tree();
// The logits [kHashVocab] after `context`, straight from the definition.
std::vector<float> hash_logits(std::span<const TokenId> context);

}  // namespace runahead::test
