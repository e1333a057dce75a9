// Engine: the model as the actors see it. The production engine is model/transformer; the simulation has a stand-in
// (tests/sim) whose K/V is a hash chain. An Engine runs on the compute lane only (actors/worker/compute_lane.h): one call at a
// time, no I/O inside; it may use several threads of its own.
//
// A chunk of a prompt goes through it like this (paper 4.1; the awaits in between are the actor's):
//   x = embed(tokens)                                   [chunk_len, model_dim]
//   for each layer
//     project_qkv(layer, x, kv, chunk, rows)...         K,V of the chunk into its own pages: these may be sent (when_published)
//     attend(layer, x, kv, chunk, {0, p1}, rows)...     pages in ascending position, one online-softmax step a page
//     finish_layer(layer, x, rows)...                   output projection, residual, MLP
//   logits(x, out)                                      of the last row
// A call takes some rows of the chunk, so that long work can be cut into short jobs. How rows and pages are grouped into
// calls does not change a bit.
// Results are bit-identical for every partition, thread count and batch mate within one compute mode (ADR 2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/device_stream.h"
#include "base/ids.h"
#include "base/model_shape.h"
#include "base/result.h"
#include "base/token_range.h"
#include "model/kv_pages.h"
#include "model/sampling_params.h"

namespace runahead {

// Activations of one chunk between two layers, and the online-softmax state of the layer in work. Owned by the request.
class Hidden {
 public:
  virtual ~Hidden() = default;
};

// Pages [begin, end) of one layer, in units of kPageTokens.
struct PageRange {
  int32_t begin = 0;
  int32_t end = 0;
};

// Rows [begin, end) of a chunk: its tokens, counted from its first.
struct RowRange {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t size() const { return end - begin; }
};

struct DecodeRow {
  KvLease* kv = nullptr;  // has room for `position`
  TokenId token = 0;  // the token at `position`: its K/V is written
  int32_t position = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ModelShape& shape() const = 0;
  virtual size_t page_bytes() const = 0;  // of one K/V page of one layer
  // The device's memory for so many pages of a pool; null: this engine computes on the pool's own. kOverloaded if there is no
  // room. The engine outlives them.
  virtual Result<std::unique_ptr<DevicePages>> device_pages(int64_t) { return nullptr; }
  // The device of those pages, for who moves them; empty: there is none.
  virtual DeviceAccess device() { return {}; }
  // What two workers must have in common to share pages: model file, compute mode, page layout. Compared as a string.
  virtual const std::string& fingerprint() const = 0;
  virtual const std::string& compute_name() const = 0;  // "fp32", ...

  // Fewer rows a call cost more a row: all threads want a block of rows each that shares one reading of the weights. A
  // multiple of kPageTokens.
  virtual int32_t rows_at_once() const = 0;

  // Host memory of the Hidden of a chunk of so many tokens.
  virtual size_t hidden_bytes(int64_t /*tokens*/) const { return 0; }
  virtual std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) = 0;
  // The first call of a layer begins at row 0.
  virtual void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) = 0;
  // Only the last row is needed from here on (the last rank in the last layer). After project_qkv, before attend; it is
  // row 0 then.
  virtual void keep_last_row(Hidden& x) = 0;
  // Consumes `pages` for `rows`; a row's first call of a layer begins at page 0, its last one ends at chunk.end_page().
  // rows.begin is a multiple of kPageTokens, and so is rows.end, unless it is the last row's.
  virtual void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages,
                      RowRange rows) = 0;
  virtual void finish_layer(int32_t layer, Hidden& x, RowRange rows) = 0;
  virtual void logits(Hidden& x, std::span<float> out) = 0;  // [vocab_size], of the last row
  // After the last layer: how likely next[i] was behind row rows.begin + i, and the `top` most likely tokens there
  // (model/sampler.h, score()). Memory: one row of logits a row, so rows are few (limits::kScoredRowsMax).
  virtual Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                                  std::span<SampledToken> out) = 0;
  // Until all that was asked for is computed: a device may be behind. Whoever needs numbers has waited for them already.
  virtual void wait() {}
  // Do pages that project_qkv() wrote come into the pool's memory beside what is computed next?
  virtual bool publishes_later() const { return false; }
  // Calls once all that were written before are there and may be sent, perhaps at once, or soon from a thread of the device's,
  // which shall not wait for it. From any thread.
  virtual void when_published(std::function<void()> call) { call(); }
  // One decode step for a batch: out [batch, vocab_size]. Each row's result does not depend on the others.
  virtual void decode(std::span<const DecodeRow> batch, std::span<float> out) = 0;
  // Is K/V that decode() writes that of a prefill, to the bit? Only then may a later prompt begin behind an answer.
  virtual bool decodes_as_it_prefills() const { return true; }
};

// The pool of an engine's pages, with the device's memory for them if it has one. The engine outlives it. kDevice: for a
// transport that moves a device's pages; kUnsupported if this engine has none that its peers can read.
enum class KvPlace { kHost, kDevice };
Result<std::unique_ptr<KvPool>> make_kv_pool(Engine& engine, int64_t num_pages, KvPlace place = KvPlace::kHost);

}  // namespace runahead
