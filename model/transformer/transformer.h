// Transformer: the production Engine, a decoder-only model on the CPU kernels. What its layers compute is data
// (model/architecture.h).
//   schedule  many rows: each thread takes blocks of rows and carries them through a whole half layer, so activations
//             stay in its cache and threads meet twice a layer. Few rows (decode): the threads share every product by
//             columns. Both give the same bits.
//   threads   one caller at a time (the compute lane); it owns its ThreadTeam.
//   owner     it owns the open model file, the packed weights and per-thread scratch; a Hidden owns its activations.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "kernels/thread_team.h"
#include "model/engine.h"
#include "model/transformer/compact_pages.h"
#include "model/weights/weights.h"

namespace runahead {

struct EngineOptions {
  std::filesystem::path model;
  std::optional<ComputeMode> compute;  // nullopt: auto, the fastest mode here that passes the quality gate
  bool compact_pages = false;  // model/transformer/compact_pages.h; not with int8, whose own have 8 bits
  int32_t threads = 1;
  LoadProgress progress;         // may be empty
  // The folder of the packed weights (model/weights/packed_cache.h); empty: none.
  std::filesystem::path packed_cache = {};
  std::vector<KvOverride> overrides = {};
  const OpTable* ops = nullptr;  // tests and benchmarks: this table, whatever `compute` says
};

// What people say of a mode: "auto", the name of one, one with 8-bit pages, "int16+kv8", or a GPU (model/cuda_transformer):
// "cuda", among GPUs, or "bf16+cuda", whose pages are those of bf16.
struct ComputeOption {
  std::optional<ComputeMode> mode;  // nullopt: auto
  bool compact_pages = false;
  bool cuda = false;
};
Result<ComputeOption> parse_compute_option(std::string_view text);
// What Engine::fingerprint() of a file begins with, whatever the mode, and the whole of it. The coordinator knows both
// without loading a weight.
std::string model_fingerprint(std::string_view content_hash);
std::string engine_fingerprint(std::string_view content_hash, ComputeMode mode, bool compact_pages);

class Activations;  // the Hidden of this engine
class DecodeAttention;

class Transformer final : public Engine {
 public:
  static Result<std::unique_ptr<Transformer>> load(const EngineOptions& options);

  const Gguf& file() const { return file_; }
  const ModelConfig& config() const { return config_; }
  const OpTable& ops() const { return ops_; }
  int32_t threads() const { return team_.size(); }
  size_t packed_bytes() const { return weights_.packed_bytes(); }
  WeightsOrigin weights_origin() const { return weights_.origin; }

  const ModelShape& shape() const override { return config_.shape; }
  size_t page_bytes() const override { return (compact_ ? compact_->layout() : layout_).page_bytes(); }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& compute_name() const override { return compute_name_; }

  int32_t rows_at_once() const override;
  size_t hidden_bytes(int64_t tokens) const override;
  std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) override;
  void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) override;
  void keep_last_row(Hidden& x) override;
  void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) override;
  void finish_layer(int32_t layer, Hidden& x, RowRange rows) override;
  void logits(Hidden& x, std::span<float> out) override;
  Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                          std::span<SampledToken> out) override;
  void decode(std::span<const DecodeRow> batch, std::span<float> out) override;

  // attend() for pages that come in any order, `anew` at the first: other orders give other last bits. For bench/rivals.
  void attend_in_any_order(int32_t layer, Hidden& x, const KvLease& kv, PageRange pages, RowRange rows, bool anew);
  // Of rows [begin, begin + count) after the last layer: out [count, vocab_size]. For perplexity.
  void logits_of_rows(Hidden& x, int32_t begin, int32_t count, std::span<float> out);

 private:
  struct Scratch {  // of one thread
    AlignedBuffer panel;  // one widened weight panel
    AlignedBuffer operand;  // [kBlockRows] operand rows
    AlignedBuffer floats;  // [kBlockRows, widest product]
    std::vector<float> row;  // [widest input]
    AlignedBuffer routed;  // [kBlockRows, model_dim] normalised rows that experts are chosen for; empty without experts
    AlignedBuffer router_operand, router_panel, scores;  // of the router's product; scores [kBlockRows, its panels]
  };
  // A row of a block, and what an expert counts in it.
  struct RoutedRow {
    int32_t row = 0;
    float weight = 0;
  };
  // Rows [begin, end) of one block of work; `shared`: the caller's thread runs it and spreads products over the team.
  struct Block {
    int32_t begin = 0, end = 0, thread = 0;
    bool shared = false;
    int32_t rows() const { return end - begin; }
  };

  Transformer(Gguf file, ModelConfig config, const OpTable& ops, int32_t threads);
  void allocate_scratch();
  template <class F>
  void for_row_blocks(RowRange rows, const F& f);
  static Operand operand_of(const Block& block, const PackedMatrix& weights) {
    return {weights.k(), block.rows(), weights.widest()};
  }
  void pack(const Block& block, int32_t row, const float* values, const PackedMatrix& weights);
  void multiply(const Block& block, const PackedMatrix& weights, Epilogue epilogue, float* out, size_t out_stride);
  std::byte* operand_row(const Block& block, int32_t row, int32_t k);
  // model/transformer/transformer_layer.cc
  void normalize(const NormConfig& norm, const NormArgs& args) const;
  void pack_normalized(Activations& x, const Block& block, const NormConfig& norm, const NormWeights& weights,
                       const PackedMatrix& product);
  void add_product(Activations& x, const Block& block, const PackedMatrix& product, const std::vector<float>& bias,
                   const NormWeights& post_norm);
  void normalize_heads(float* heads, int32_t count, const std::vector<float>& gains) const;
  void project_block(int32_t layer, Activations& x, const Block& block);
  void store_row(int32_t layer, Activations& x, int32_t row, float* head);
  void collect_heads(Activations& x, const Block& block, float* mixed);
  void finish_block(int32_t layer, Activations& x, const Block& block);
  void add_attention(const LayerWeights& w, Activations& x, const Block& block);
  const float* normalized(Activations& x, const Block& block, int32_t r, const NormConfig& norm,
                          const NormWeights& weights);
  void feed_forward(const LayerWeights& w, Activations& x, const Block& block);
  void multiply_ffn(const FfnWeights& ffn, const std::vector<float>& up_bias, const Block& block);
  // model/transformer/experts.cc
  void mix_experts(const LayerWeights& w, Activations& x, const Block& block);
  std::vector<std::vector<RoutedRow>> route(const LayerWeights& w, const float* rows, const Block& block);
  size_t head_stride() const;  // floats of one row's logits, with the padding of the last panel
  void project_head(Activations& x, const Block& block, float* out);
  std::unique_ptr<Activations> embed_rows(std::span<const TokenId> tokens, int32_t tile_tokens);
  // Where pages lie that the kernels take: page p at page_of(p).
  using PageOf = std::function<const std::byte*(int32_t)>;
  // What a layer's attention is over some pages; first_page: where a tile's sums begin, or kNoPage.
  struct LayerPages {
    int32_t layer = 0;
    PageRange pages;
    int32_t first_page = 0;
  };
  static constexpr int32_t kNoPage = -1;
  void attend_tile(const PageOf& page_of, Activations& x, int32_t head, int32_t tile, const LayerPages& part);
  void attend_tiles(const PageOf& page_of, Activations& x, RowRange tiles, const LayerPages& part);
  void attend_pages(const LayerPages& part, Hidden& hidden, const KvLease& kv, RowRange rows);
  float soft_cap() const;  // of scores in powers of two
  void decode_layer(int32_t layer, Activations& x, std::span<const DecodeRow> batch, DecodeAttention* attention);

  Gguf file_;
  ModelConfig config_;
  PaddedShape padded_;
  const OpTable& ops_;
  const OpTable* router_ops_ = nullptr;  // fp32: a choice that rounding changes is another model
  ThreadTeam team_;
  KvLayout layout_;  // of the kernels' pages
  std::optional<CompactPages> compact_;  // what pages are where they are kept and sent
  Weights weights_;
  std::string fingerprint_;
  std::string compute_name_;
  std::vector<Scratch> scratch_;  // one a thread
  AlignedBuffer decode_parts_;  // model/transformer/decode_attention.h
};

}  // namespace runahead
