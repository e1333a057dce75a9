#include "model/transformer/transformer.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/limits.h"
#include "model/sampler.h"
#include "model/transformer/activations.h"
#include "model/transformer/decode_attention.h"

namespace runahead {
namespace {

// Grows when the bytes of a K/V page change meaning, or a mode's arithmetic its bits: the ranks of a chain share both.
constexpr int kKvVersion = 5;

// Most rows a thread carries through a half layer at once: that many share one widening of the weights, and a product takes
// them at once (kernels/cpu/gemm_spans.h). Measured on Zen 4, 2 threads, 512 tokens, against as many as fit 2,200 KiB with
// their widest product (on Llama-8B's shapes 24): int8 1.3 times as fast there, 1.1 times on Llama-1B's; bf16 1.2 and 1.04,
// fp32 1.15 and 1.03, int16 1.0 and 1.08.
constexpr int32_t kBlockRows = 264;
// The register tile is 12 rows high.
constexpr int32_t kTileRows = 12;
// Up to this many rows a thread, products are shared by columns: each thread widens half of the weights instead of
// every thread all of them.
constexpr int32_t kSharedRowsPerThread = 36;

constexpr std::string_view kCompactSuffix = "+kv8";
std::string name_of(ComputeMode mode, bool compact_pages) {
  return std::string(name(mode)) + std::string(compact_pages ? kCompactSuffix : "");
}

}  // namespace

Result<ComputeOption> parse_compute_option(std::string_view text) {
  if (text == "auto") return ComputeOption{};
  if (text == "cuda") return ComputeOption{.cuda = true};
  if (text == "bf16+cuda") return ComputeOption{.mode = ComputeMode::kBf16, .cuda = true};
  ComputeOption option{.compact_pages = text.ends_with(kCompactSuffix)};
  if (option.compact_pages) text.remove_suffix(kCompactSuffix.size());
  if (text == "auto")
    return fail(ErrorCode::kInvalidArgument,
                "auto may take int8, whose K/V pages have 8 bits already; name a mode, as in int16+kv8", "compute");
  auto mode = parse_compute_mode(text);
  if (!mode) {
    mode.error().message += ", or cuda for a GPU";
    return std::unexpected(std::move(mode.error()));
  }
  option.mode = *mode;
  if (option.compact_pages && option.mode == ComputeMode::kInt8)
    return fail(ErrorCode::kInvalidArgument, "the K/V pages of int8 have 8 bits already; say int8", "compute");
  return option;
}

std::string model_fingerprint(std::string_view content_hash) { return std::string(content_hash) + "/"; }

std::string engine_fingerprint(std::string_view content_hash, ComputeMode mode, bool compact_pages) {
  return model_fingerprint(content_hash) + name_of(mode, compact_pages) + "/kv" + std::to_string(kKvVersion);
}

Result<std::unique_ptr<Transformer>> Transformer::load(const EngineOptions& options) {
  if (options.threads < 1 || options.threads > limits::kEngineThreadsMax)
    return fail(ErrorCode::kInvalidArgument,
                "threads must be between 1 and " + std::to_string(limits::kEngineThreadsMax), "threads");
  const OpTable* ops = options.ops;
  if (ops == nullptr) ops = TRY(select_ops(options.compute ? *options.compute : fastest_mode()));
  Gguf file = TRY(Gguf::open(options.model, options.overrides));
  ModelConfig config = TRY(read_model_config(file));
  std::unique_ptr<Transformer> engine(new Transformer(std::move(file), std::move(config), *ops, options.threads));
  const std::string bytes_hash = engine->file_.bytes_hash();
  engine->file_.drop_pages();  // so that the file and its packed form do not count at the same time
  std::optional<PackedCache> cache;
  if (!options.packed_cache.empty())
    cache.emplace(options.packed_cache, engine->file_.with_weight_overrides(bytes_hash));
  engine->weights_ =
      TRY(load_weights(engine->file_, engine->config_, engine->team_, options.progress, cache ? &*cache : nullptr));
  engine->file_.drop_pages();  // what is still used of them, the embedding's rows, comes back when touched
  engine->layout_ = ops->kv_layout(engine->shape().num_kv_heads, engine->padded_.head_dim);
  RUNAHEAD_CHECK(!options.compact_pages || ops->mode != ComputeMode::kInt8, "pages of int8 have 8 bits already");
  if (options.compact_pages) engine->compact_.emplace(*ops, engine->layout_, options.threads);
  if (engine->page_bytes() > limits::kPageBytesMax)
    return fail(ErrorCode::kTooLarge,
                "a K/V page of this model would be over " + std::to_string(limits::kPageBytesMax) + " bytes");
  engine->compute_name_ = name_of(ops->mode, options.compact_pages);
  engine->fingerprint_ = engine_fingerprint(engine->file_.with_overrides(bytes_hash), ops->mode, options.compact_pages);
  if (engine->config_.layer.experts > 0) engine->router_ops_ = TRY(select_ops(ComputeMode::kFp32));
  engine->allocate_scratch();
  return engine;
}

Transformer::Transformer(Gguf file, ModelConfig config, const OpTable& ops, int32_t threads)
    : file_(std::move(file)), config_(std::move(config)), padded_(config_.shape), ops_(ops), team_(threads) {}

void Transformer::allocate_scratch() {
  const PaddedShape& p = padded_;
  const int32_t inputs_max = std::max({p.model_dim, p.ffn_dim, p.heads_dim});
  const int32_t outputs_max = std::max({p.qkv_dim, p.ffn_dim, p.mixed_stride, p.model_dim}) + kPanelOutputs;
  scratch_.resize(static_cast<size_t>(team_.size()));
  for (Scratch& scratch : scratch_) {
    scratch.panel = AlignedBuffer(ops_.panel_scratch_bytes(inputs_max));
    scratch.operand = AlignedBuffer(static_cast<size_t>(kBlockRows) * ops_.row_bytes(inputs_max));
    scratch.floats = AlignedBuffer(static_cast<size_t>(kBlockRows) * static_cast<size_t>(outputs_max) * sizeof(float));
    scratch.row.resize(static_cast<size_t>(inputs_max));
    if (router_ops_ == nullptr) continue;
    const auto rows = static_cast<size_t>(kBlockRows);
    const size_t experts = static_cast<size_t>(config_.layer.experts + kPanelOutputs) * sizeof(float);
    scratch.routed = AlignedBuffer(rows * static_cast<size_t>(p.model_dim) * sizeof(float));
    scratch.router_operand = AlignedBuffer(rows * router_ops_->row_bytes(p.model_dim));
    scratch.router_panel = AlignedBuffer(router_ops_->panel_scratch_bytes(p.model_dim));
    scratch.scores = AlignedBuffer(rows * experts);
  }
}

template <class F>
void Transformer::for_row_blocks(RowRange range, const F& f) {
  const FlushDenormals flush;
  const int32_t threads = team_.size(), rows = range.size();
  if (threads == 1 || rows <= kSharedRowsPerThread * threads) {
    const auto all = [&](int32_t, int32_t thread) {
      for (int32_t begin = range.begin; begin < range.end; begin += kBlockRows)
        f(Block{begin, std::min(range.end, begin + kBlockRows), thread, threads > 1});
    };
    return threads > 1 ? all(0, 0) : team_.run(1, all);
  }
  // The same number of blocks for every thread, all of about one size.
  const int32_t rounds = (rows + threads * kBlockRows - 1) / (threads * kBlockRows);
  const int32_t wanted = (rows + rounds * threads - 1) / (rounds * threads);
  const int32_t size = std::min(kBlockRows, (wanted + kTileRows - 1) / kTileRows * kTileRows);
  team_.run((rows + size - 1) / size, [&](int32_t part, int32_t thread) {
    f(Block{range.begin + part * size, std::min(range.end, range.begin + (part + 1) * size), thread, false});
  });
}

std::byte* Transformer::operand_row(const Block& block, int32_t row, int32_t k) {
  return scratch_[static_cast<size_t>(block.thread)].operand.data() + static_cast<size_t>(row) * ops_.row_bytes(k);
}

// Makes values the operand row of the block's product with weights.
void Transformer::pack(const Block& block, int32_t row, const float* values, const PackedMatrix& weights) {
  ops_.pack_row(values, operand_of(block, weights), operand_row(block, row, weights.k()));
}

// out (+)= operand rows of the block times weights.
void Transformer::multiply(const Block& block, const PackedMatrix& weights, Epilogue epilogue, float* out,
                           size_t out_stride) {
  GemmArgs args{.a = operand_row(block, 0, weights.k()),
                .operand = operand_of(block, weights),
                .panels = weights.panels(),
                .panel_begin = 0,
                .panel_end = weights.num_panels(),
                .epilogue = epilogue,
                .out = out,
                .out_stride = out_stride,
                .scratch = scratch_[static_cast<size_t>(block.thread)].panel.data()};
  if (!block.shared) return ops_.gemm(args);
  // About eight parts a thread: small enough that a slow thread does not hold up the rest.
  const int32_t grain = std::max(1, weights.num_panels() / (8 * team_.size()));
  team_.run((weights.num_panels() + grain - 1) / grain, [&](int32_t part, int32_t thread) {
    GemmArgs mine = args;
    mine.panel_begin = part * grain;
    mine.panel_end = std::min(weights.num_panels(), (part + 1) * grain);
    mine.scratch = scratch_[static_cast<size_t>(thread)].panel.data();
    ops_.gemm(mine);
  });
}

size_t Transformer::hidden_bytes(int64_t tokens) const {
  const Activations page(config_, ops_, kPageTokens, kPageTokens);
  return page.bytes() * static_cast<size_t>((tokens + kPageTokens - 1) / kPageTokens);
}

std::unique_ptr<Hidden> Transformer::embed(std::span<const TokenId> tokens) { return embed_rows(tokens, kPageTokens); }

std::unique_ptr<Activations> Transformer::embed_rows(std::span<const TokenId> tokens, int32_t tile_tokens) {
  RUNAHEAD_CHECK(!tokens.empty(), "a chunk has tokens");
  const auto rows = static_cast<int32_t>(tokens.size());
  auto x = std::make_unique<Activations>(config_, ops_, rows, tile_tokens);
  const QuantMatrixView& table = weights_.embedding;
  for_row_blocks({0, rows}, [&](const Block& block) {
    for (int32_t r = block.begin; r < block.end; ++r) {
      const TokenId token = tokens[static_cast<size_t>(r)];
      RUNAHEAD_CHECK(token >= 0 && token < shape().vocab_size, "a token is outside the vocabulary");
      const std::span<float> row(x->row(r), static_cast<size_t>(shape().model_dim));
      dequantize(table.type, table.row(token), row);
      if (config_.embedding_scale != 1)
        for (float& value : row) value *= config_.embedding_scale;
    }
  });
  return x;
}

int32_t Transformer::rows_at_once() const { return kBlockRows / kPageTokens * kPageTokens * team_.size(); }

void Transformer::project_qkv(int32_t layer, Hidden& hidden, KvLease& kv, TokenRange chunk, RowRange rows) {
  auto& x = static_cast<Activations&>(hidden);
  RUNAHEAD_CHECK(chunk.size() == x.rows() && chunk.begin % kPageTokens == 0,
                 "a chunk begins a page and has a row a token");
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  if (x.places().front().kv != &kv || x.places().front().position != chunk.begin) {
    for (int32_t r = 0; r < x.rows(); ++r) x.place(r, {&kv, chunk.begin + r}, config_.ropes);
  }
  // The kernels read whole pages, and probability zero times a NaN that an earlier request left is no zero.
  if (rows.begin == 0 && chunk.end % kPageTokens != 0) kv.clear(layer, chunk.end / kPageTokens);
  for_row_blocks(rows, [&](const Block& block) { project_block(layer, x, block); });
}

void Transformer::keep_last_row(Hidden& x) { static_cast<Activations&>(x).keep_last_row(); }

// One KV head of a page of a chunk, or of one decode row.
void Transformer::attend_tile(const PageOf& page_of, Activations& x, int32_t head, int32_t tile,
                              const LayerPages& part) {
  const int32_t position = x.places()[static_cast<size_t>(tile * x.tile_tokens())].position;
  const int32_t window = shape().window(part.layer), in_reach = first_page_in_reach(position, window);
  AttendArgs args{.tile = x.tile(head, tile), .position = position, .window = window, .soft_cap = soft_cap()};
  const int32_t anew = part.first_page == kNoPage ? kNoPage : std::max(part.first_page, in_reach);
  for (int32_t p = std::max(part.pages.begin, in_reach); p < part.pages.end && p <= position / kPageTokens; ++p) {
    const std::byte* page = page_of(p);
    args.page_position = p * kPageTokens;
    args.anew = p == anew;
    args.keys = page + layout_.key_offset(head);
    args.values = page + layout_.value_offset(head);
    ops_.attend_page(args);
  }
}

void Transformer::attend(int32_t layer, Hidden& hidden, const KvLease& kv, TokenRange chunk, PageRange pages,
                         RowRange rows) {
  RUNAHEAD_CHECK(pages.begin >= 0 && pages.end <= chunk.end_page(), "a chunk attends to its visible pages");
  attend_pages({layer, pages, 0}, hidden, kv, rows);
}

void Transformer::attend_in_any_order(int32_t layer, Hidden& hidden, const KvLease& kv, PageRange pages, RowRange rows,
                                      bool anew) {
  attend_pages({layer, pages, anew ? pages.begin : kNoPage}, hidden, kv, rows);
}

void Transformer::attend_pages(const LayerPages& part, Hidden& hidden, const KvLease& kv, RowRange rows) {
  auto& x = static_cast<Activations&>(hidden);
  const int32_t tile_tokens = x.tile_tokens(), heads = shape().num_kv_heads, layer = part.layer;
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.begin % tile_tokens == 0 &&
                     (rows.end % tile_tokens == 0 ? rows.end <= x.rows() : rows.end == x.rows()),
                 "whole tiles of the chunk");
  const RowRange tiles{rows.begin / tile_tokens, (rows.end + tile_tokens - 1) / tile_tokens};
  if (!compact_) return attend_tiles([&](int32_t p) { return kv.page(layer, p).data(); }, x, tiles, part);
  const auto position_of = [&](int32_t row) { return x.places()[static_cast<size_t>(row)].position; };
  const int32_t seen = std::min(part.pages.end, position_of(rows.end - 1) / kPageTokens + 1);
  const int32_t first = std::max(part.pages.begin, first_page_in_reach(position_of(rows.begin), shape().window(layer)));
  for (int32_t begin = first; begin < seen; begin += CompactPages::kGroupPages) {
    const PageRange group{begin, std::min(seen, begin + CompactPages::kGroupPages)};
    team_.run((group.end - group.begin) * heads, [&](int32_t of, int32_t) {
      const int32_t page = of / heads;
      compact_->expand(kv.page(layer, begin + page), of % heads, compact_->group_page(page));
    });
    attend_tiles([&](int32_t p) { return compact_->group_page(p - begin); }, x, tiles, {layer, group, part.first_page});
  }
}

void Transformer::attend_tiles(const PageOf& page_of, Activations& x, RowRange tiles, const LayerPages& part) {
  const int32_t heads = shape().num_kv_heads;
  team_.run(tiles.size() * heads, [&](int32_t of, int32_t) {
    // The tile that sees most first, so that threads end together.
    attend_tile(page_of, x, of % heads, tiles.end - 1 - of / heads, part);
  });
}

void Transformer::finish_layer(int32_t layer, Hidden& hidden, RowRange rows) {
  auto& x = static_cast<Activations&>(hidden);
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  for_row_blocks(rows, [&](const Block& block) { finish_block(layer, x, block); });
}

void Transformer::logits(Hidden& hidden, std::span<float> out) {
  logits_of_rows(hidden, static_cast<Activations&>(hidden).rows() - 1, 1, out);
}

void Transformer::logits_of_rows(Hidden& hidden, int32_t begin, int32_t count, std::span<float> out) {
  const FlushDenormals flush;
  auto& x = static_cast<Activations&>(hidden);
  const auto vocab = static_cast<size_t>(shape().vocab_size);
  RUNAHEAD_CHECK(begin >= 0 && begin + count <= x.rows() && out.size() == static_cast<size_t>(count) * vocab,
                 "logits have a row a token");
  const bool in_place = head_stride() == vocab;
  AlignedBuffer padded(in_place ? 0 : static_cast<size_t>(std::min(count, kBlockRows)) * head_stride() * sizeof(float));
  for (int32_t done = 0; done < count; done += kBlockRows) {
    const Block block{begin + done, begin + std::min(count, done + kBlockRows), 0, true};
    float* rows = in_place ? out.data() + static_cast<size_t>(done) * vocab : padded.as<float>().data();
    project_head(x, block, rows);
    if (in_place) continue;
    for (int32_t r = 0; r < block.rows(); ++r)
      std::memcpy(out.data() + static_cast<size_t>(done + r) * vocab, rows + static_cast<size_t>(r) * head_stride(),
                  vocab * sizeof(float));
  }
}

Result<void> Transformer::score_rows(Hidden& hidden, RowRange rows, std::span<const TokenId> next, int32_t top,
                                     std::span<SampledToken> out) {
  const FlushDenormals flush;
  auto& x = static_cast<Activations&>(hidden);
  const auto vocab = static_cast<size_t>(shape().vocab_size), count = static_cast<size_t>(rows.size());
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows() && rows.size() <= kBlockRows,
                 "few rows");
  RUNAHEAD_CHECK(next.size() == count && out.size() == count, "a row has one token behind it");
  AlignedBuffer logits(count * head_stride() * sizeof(float));
  project_head(x, {rows.begin, rows.end, 0, true}, logits.as<float>().data());
  std::vector<Result<void>> sound(count);
  team_.run(rows.size(), [&](int32_t part, int32_t) {
    const auto row = static_cast<size_t>(part);
    Result<SampledToken> scored = score(logits.as<float>().subspan(row * head_stride(), vocab), next[row], top);
    if (scored) out[row] = std::move(*scored);
    else sound[row] = std::unexpected(std::move(scored.error()));
  });
  for (Result<void>& one : sound) TRY(std::move(one));
  return {};
}

void Transformer::decode_layer(int32_t layer, Activations& x, std::span<const DecodeRow> batch,
                               DecodeAttention* attention) {
  const int32_t heads = shape().num_kv_heads;
  for (const DecodeRow& row : batch)
    if (row.position % kPageTokens == 0) row.kv->clear(layer, row.position / kPageTokens);
  for_row_blocks({0, x.rows()}, [&](const Block& block) { project_block(layer, x, block); });
  if (attention != nullptr) {
    attention->run(layer);
  } else {
    team_.run(x.rows() * heads, [&](int32_t part, int32_t thread) {
      const DecodeRow& row = batch[static_cast<size_t>(part / heads)];
      const int32_t head = part % heads;
      const auto page_of = [&](int32_t p) {
        const std::span<const std::byte> page = row.kv->page(layer, p);
        return compact_ ? compact_->expanded(page, head, thread) : page.data();
      };
      attend_tile(page_of, x, head, part / heads, {layer, {0, row.position / kPageTokens + 1}, 0});
    });
  }
  for_row_blocks({0, x.rows()}, [&](const Block& block) { finish_block(layer, x, block); });
}

void Transformer::decode(std::span<const DecodeRow> batch, std::span<float> out) {
  std::vector<TokenId> tokens;
  for (const DecodeRow& row : batch) tokens.push_back(row.token);
  const std::unique_ptr<Activations> rows = embed_rows(tokens, 1);
  Activations& x = *rows;
  for (int32_t r = 0; r < x.rows(); ++r) {
    const DecodeRow& row = batch[static_cast<size_t>(r)];
    x.place(r, {row.kv, row.position}, config_.ropes);
  }
  std::map<int32_t, DecodeAttention> attentions;  // by window
  for (int32_t layer = 0; layer < shape().num_layers; ++layer) {
    const int32_t window = shape().window(layer);
    if (x.tile(0, 0).rows <= kPartRowsMax && !attentions.contains(window))
      attentions.try_emplace(window, ops_, layout_, compact_ ? &*compact_ : nullptr, x, team_, decode_parts_,
                             DecodeAttention::Scores{window, soft_cap()});
    const auto found = attentions.find(window);
    decode_layer(layer, x, batch, found == attentions.end() ? nullptr : &found->second);
  }
  logits_of_rows(x, 0, x.rows(), out);
}

}  // namespace runahead
