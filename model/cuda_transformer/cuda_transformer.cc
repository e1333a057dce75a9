#include "model/cuda_transformer/cuda_transformer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "model/cuda_transformer/cuda_activations.h"
#include "model/sampler.h"
#include "model/transformer/transformer.h"
#include "model/weights/layer_tensors.h"
#include "model/weights/padded_shape.h"

namespace runahead {
namespace {

// Grows when the bytes of a K/V page change meaning: the ranks of a chain share them.
constexpr int kCudaKvVersion = 1;
constexpr const char* kComputeName = "cuda-bf16";
// Enough to fill a device with tiles; more only delays the first page of the next rank.
constexpr int32_t kRowsAtOnce = 2048;
constexpr float kLog2E = 1.44269504f;  // the softmax is one of powers of two

int32_t padded_head_dim(int32_t head_dim) {
  const auto* found = std::ranges::find_if(cuda::kHeadDims, [&](int dim) { return dim >= head_dim; });
  return found == std::end(cuda::kHeadDims) ? 0 : *found;
}

class CudaPages final : public DevicePages {
 public:
  CudaPages(const cuda::CudaOps& ops, PageCopies& copies, void* memory, size_t page_bytes, bool can_travel)
      : ops_(ops),
        copies_(copies),
        memory_(static_cast<std::byte*>(memory)),
        page_bytes_(page_bytes),
        can_travel_(can_travel) {}
  ~CudaPages() override {
    copies_.wait();
    if (host_ != nullptr) ops_.unpin(host_);
    ops_.release_apart(memory_);
  }
  std::byte* data() override { return memory_; }
  size_t page_bytes() const override { return page_bytes_; }
  bool can_travel() const override { return can_travel_; }
  // Copies from and to what cannot be pinned (`ulimit -l`) are right, too, and wait.
  void pair_with(std::span<std::byte> host) override {
    if (ops_.pin(host.data(), host.size())) host_ = host.data();
    else
      log::warn("the K/V pages' {} MiB of the host cannot be pinned, so copies to the GPU are slow", host.size() >> 20);
  }

 private:
  const cuda::CudaOps& ops_;
  PageCopies& copies_;
  std::byte* memory_;
  std::byte* host_ = nullptr;  // pinned
  size_t page_bytes_;
  bool can_travel_;
};

// The kernels here are those of Llama's layers.
Result<void> check_layers(const ModelConfig& config, const Gguf& file) {
  const LayerConfig& layer = config.layer;
  const bool plain = layer.norm.kind == NormKind::kRms && layer.qk_norm == QkNorm::kNone && layer.pre_norms &&
                     !layer.post_norms && !layer.parallel && layer.ffn == FfnKind::kSiluGated && layer.residual_scale == 1 &&
                     layer.attention_soft_cap == 0 && layer.rotated == config.shape.head_dim && config.shape.windows.empty() &&
                     config.ropes.size() == 1 && config.ropes.front().magnitude == 1 && config.embedding_scale == 1 &&
                     config.logit_scale == 1 && config.logit_soft_cap == 0 &&
                     layer.attention_scale == 1 / std::sqrt(static_cast<float>(config.shape.head_dim));
  const LayerTensors tensors(file, layer, 0);
  const bool biased = !tensors.q.bias.empty() || !tensors.k.bias.empty() || !tensors.v.bias.empty() ||
                      !tensors.qkv.bias.empty() || !tensors.attention_out.bias.empty() || !tensors.down.bias.empty();
  if (plain && !biased) return {};
  return fail(ErrorCode::kUnsupported, "a GPU does not run the layers of this model (architecture " +
                                           config.shape.architecture + ") here; use --compute auto, the processor");
}

}  // namespace

Result<std::unique_ptr<CudaTransformer>> CudaTransformer::load(const cuda::CudaOps& ops,
                                                               const CudaEngineOptions& options) {
  Gguf file = TRY(Gguf::open(options.model, options.overrides));
  ModelConfig config = TRY(read_model_config(file));
  TRY(check_layers(config, file));
  std::unique_ptr<CudaTransformer> engine(new CudaTransformer(ops, std::move(file), std::move(config)));
  const int32_t head_dim = engine->shape().head_dim;
  engine->padded_dim_ = padded_head_dim(head_dim);
  engine->decode_ = std::make_unique<DecodeBuffers>(ops, engine->config_, engine->padded_dim_);
  if (engine->padded_dim_ == 0)
    return fail(ErrorCode::kUnsupported, "an attention head of " + std::to_string(head_dim) +
                                             " is over 256, which a GPU does not run here; use --compute fp32");
  if (options.pages_of_bf16) {
    engine->host_layout_ = reference_ops(ComputeMode::kBf16)
                               .kv_layout(engine->shape().num_kv_heads, PaddedShape(engine->shape()).head_dim);
    engine->arriving_ = DeviceArray<std::byte>(ops, engine->page_bytes());
    engine->leaving_ = DeviceArray<std::byte>(ops, engine->page_bytes());
    if (engine->arriving_.is_empty() || engine->leaving_.is_empty())
      return fail(ErrorCode::kOverloaded, "the device has no room for a page");
  }
  if (engine->page_bytes() > limits::kPageBytesMax)
    return fail(ErrorCode::kTooLarge,
                "a K/V page of this model would be over " + std::to_string(limits::kPageBytesMax) + " bytes");
  engine->weights_ = TRY(load_cuda_weights(ops, engine->file_, engine->config_, options.progress));
  const std::string products = engine->choose_products();
  const std::string hash = engine->file_.with_overrides(engine->file_.bytes_hash());
  engine->file_.drop_pages();  // all of it is on the device
  engine->compute_name_ = options.pages_of_bf16 ? "bf16+cuda" : kComputeName;
  engine->fingerprint_ = options.pages_of_bf16 ? engine_fingerprint(hash, ComputeMode::kBf16, false)
                                               : model_fingerprint(hash) + kComputeName + " " + ops.kind + products +
                                                     "/kv" + std::to_string(kCudaKvVersion);
  if (const char* error = ops.error()) return fail(ErrorCode::kUnavailable, "the device failed: " + std::string(error));
  return engine;
}

CudaTransformer::CudaTransformer(const cuda::CudaOps& ops, Gguf file, ModelConfig config)
    : ops_(ops), file_(std::move(file)), config_(std::move(config)), copies_(ops) {}

size_t CudaTransformer::page_bytes() const { return host_layout_ ? host_layout_->page_bytes() : device_page_bytes(); }

size_t CudaTransformer::device_page_bytes() const {
  return 2 * static_cast<size_t>(shape().num_kv_heads * kPageTokens * padded_dim_) * sizeof(uint16_t);
}

Result<std::unique_ptr<DevicePages>> CudaTransformer::device_pages(int64_t count) {
  const size_t bytes = device_page_bytes() * static_cast<size_t>(count);
  void* memory = ops_.allocate_apart(bytes);  // streams of transports have it, too
  if (memory == nullptr)
    return fail(ErrorCode::kOverloaded, "the device has no room for " + std::to_string(bytes >> 20) +
                                            " MiB of K/V pages; ask for fewer with --kv-memory-mib");
  return std::make_unique<CudaPages>(ops_, copies_, memory, device_page_bytes(), !host_layout_);
}

cuda::RepackArgs CudaTransformer::repack_args(std::byte* from, std::byte* to, bool to_host_form) const {
  return {.from = reinterpret_cast<const uint16_t*>(from),
          .to = reinterpret_cast<uint16_t*>(to),
          .to_host_form = to_host_form,
          .kv_heads = shape().num_kv_heads,
          .head_dim = shape().head_dim,
          .padded_dim = padded_dim_,
          .host_dim = host_layout_->head_dim};
}

void CudaTransformer::wait() {
  ops_.finish();
  check_device();  // before anybody is sent what it wrote
}

void CudaTransformer::clear_page(KvLease& kv, int32_t layer, int32_t page) {
  ops_.clear(kv.device_page(layer, page), device_page_bytes());
  kv.mark_on_device(layer, page);
}

const uint16_t* CudaTransformer::page_to_read(KvLease& kv, int32_t layer, int32_t page) {
  RUNAHEAD_CHECK(!host_layout_ || kv.has_twins(), "pages in the processor's form have twins on the device");
  std::byte* device = kv.device_page(layer, page);
  if (kv.needs_upload(layer, page)) {
    ops_.to_device(host_layout_ ? arriving_.data() : device, kv.page(layer, page).data(), page_bytes());
    if (host_layout_) ops_.repack(repack_args(arriving_.data(), device, /*to_host_form=*/false));
    kv.mark_on_device(layer, page);
  }
  return reinterpret_cast<const uint16_t*>(device);
}

int64_t CudaTransformer::value_offset() const { return int64_t{shape().num_kv_heads} * kPageTokens * padded_dim_; }

// What a device that has failed gives is no answer of the model.
void CudaTransformer::check_device() const {
  const char* error = ops_.error();
  RUNAHEAD_CHECK(error == nullptr, error);
}

int32_t CudaTransformer::rows_at_once() const { return kRowsAtOnce; }

std::unique_ptr<Hidden> CudaTransformer::embed(std::span<const TokenId> tokens) {
  RUNAHEAD_CHECK(!tokens.empty(), "a chunk has tokens");
  for (const TokenId token : tokens)
    RUNAHEAD_CHECK(token >= 0 && token < shape().vocab_size, "a token is outside the vocabulary");
  auto x = std::make_unique<CudaActivations>(ops_, config_, padded_dim_, static_cast<int32_t>(tokens.size()));
  const auto ids = need_device_array<int32_t>(ops_, tokens.size());
  ids.fill(tokens);
  embed_rows(ids.data(), *x);
  ops_.finish();  // the ids are freed
  return x;
}

void CudaTransformer::embed_rows(const int32_t* tokens, CudaActivations& x) {
  const QuantFormat& format = quant_format(weights_.embedding.type);
  ops_.embed({.type = static_cast<uint32_t>(weights_.embedding.type),
              .table = weights_.embedding_bytes.data(),
              .cols = shape().model_dim,
              .block_bytes = format.block_bytes,
              .block_len = format.block_len,
              .tokens = tokens,
              .rows = x.rows(),
              .out = x.x.data()});
}

// Rows of x, normalised, to the operand's first rows.
void CudaTransformer::normalize(const DeviceArray<float>& gain, const NormConfig& norm, CudaActivations& x,
                                RowRange rows) {
  switch (norm.kind) {
    case NormKind::kRms:
      ops_.rms_norm({.x = x.row(rows.begin),
                     .gain = gain.data(),
                     .epsilon = norm.epsilon,
                     .rows = rows.size(),
                     .dim = shape().model_dim,
                     .out = x.operand.data(),
                     .out_stride = cuda_depth(shape().model_dim)});
      break;
  }
}

// What the fingerprint says of them: nothing if all are our kernel's.
std::string CudaTransformer::choose_products() {
  const CudaLayer& w = weights_.layers.front();  // all layers have its shapes
  std::string chosen;
  for (const auto& [matrix, epilogue] : {std::pair{&w.qkv, cuda::Epilogue::kStore},
                                         {&w.attention_out, cuda::Epilogue::kAdd},
                                         {&w.gate_up, cuda::Epilogue::kSiluMul},
                                         {&w.down, cuda::Epilogue::kAdd}})
    chosen += ops_.choose_gemm({.n = matrix->n, .k = matrix->k, .epilogue = epilogue}) + std::string(";");
  return chosen == ";;;;" ? "" : "/products-" + std::to_string(crc32c(std::as_bytes(std::span(chosen))));
}

// A decode step's are our kernel's: it has few rows, and its bits are others than those of prefill anyhow (ADR 25).
void CudaTransformer::multiply(const CudaMatrix& weights, const uint16_t* operand, int32_t rows,
                               cuda::Epilogue epilogue, void* out, int32_t out_stride, bool of_prefill) {
  ops_.gemm({.a = operand,
             .weights = weights.rows.data(),
             .rows = rows,
             .n = weights.n,
             .k = weights.k,
             .epilogue = epilogue,
             .out = out,
             .out_stride = out_stride,
             .as_chosen = of_prefill});
}

// Q, K and V of some rows; K and V go into their pages.
void CudaTransformer::project(int32_t layer, CudaActivations& x, RowRange rows, uint16_t* const* keys) {
  const CudaLayer& w = weights_.layers[static_cast<size_t>(layer)];
  normalize(w.attention_norm, config_.layer.norm, x, rows);
  multiply(w.qkv, x.operand.data(), rows.size(), cuda::Epilogue::kStore, x.qkv_row(rows.begin), w.qkv.n,
           x.of_prefill());
  ops_.store_qkv({.qkv = x.qkv_row(rows.begin),
                  .cos_sin = x.angles(rows.begin),
                  .rows = rows.size(),
                  .heads = shape().num_heads,
                  .kv_heads = shape().num_kv_heads,
                  .head_dim = shape().head_dim,
                  .padded_dim = padded_dim_,
                  .rotated = static_cast<int>(2 * config_.ropes.front().frequencies.size()),
                  .query_scale = kLog2E / std::sqrt(static_cast<float>(shape().head_dim)),
                  .queries = x.queries_row(rows.begin),
                  .keys = keys,
                  .value_offset = value_offset()});
}

// Where a row's K goes; V lies value_offset() behind.
uint16_t* CudaTransformer::key_of(int32_t layer, const CudaActivations::Place& place) {
  const int32_t page = place.position / kPageTokens, slot = place.position % kPageTokens;
  if (slot == 0) place.kv->mark_on_device(layer, page);  // what was there is written over
  return const_cast<uint16_t*>(page_to_read(*place.kv, layer, page)) + slot * padded_dim_;
}

// The pages that rows were written to go to the host, where they have twins; else they may be sent when this is computed.
void CudaTransformer::publish(int32_t layer, const CudaActivations& x, RowRange rows) {
  copies_.begin();
  for (int32_t r = rows.begin; r < rows.end; ++r) {
    const auto& [kv, position] = x.places()[static_cast<size_t>(r)];
    if (!kv->has_twins()) break;
    const bool is_pages_last = r + 1 == rows.end || x.places()[static_cast<size_t>(r) + 1].kv != kv ||
                               x.places()[static_cast<size_t>(r) + 1].position / kPageTokens != position / kPageTokens;
    if (!is_pages_last) continue;
    const int32_t page = position / kPageTokens;
    std::byte* from = kv->device_page(layer, page);
    void* to = kv->page(layer, page).data();
    if (host_layout_) copies_.copy(to, repack_args(from, leaving_.data(), /*to_host_form=*/true), page_bytes());
    else copies_.copy(to, from, page_bytes());
  }
}

void CudaTransformer::project_qkv(int32_t layer, Hidden& hidden, KvLease& kv, TokenRange chunk, RowRange rows) {
  auto& x = static_cast<CudaActivations&>(hidden);
  RUNAHEAD_CHECK(chunk.size() == x.rows() && chunk.begin % kPageTokens == 0,
                 "a chunk begins a page and has a row a token");
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  if (x.places().front().kv != &kv || x.places().front().position != chunk.begin) {
    std::vector<CudaActivations::Place> places;
    for (int32_t position = chunk.begin; position < chunk.end; ++position) places.push_back({&kv, position});
    x.place(std::move(places));
  }
  // Whole pages are read, and weight zero times a NaN that an earlier request left is no zero.
  if (rows.begin == 0 && chunk.end % kPageTokens != 0) clear_page(kv, layer, chunk.end / kPageTokens);
  std::vector<uint16_t*> keys;
  for (int32_t r = rows.begin; r < rows.end; ++r) keys.push_back(key_of(layer, x.places()[static_cast<size_t>(r)]));
  x.keys.fill(keys);
  project(layer, x, rows, x.keys.data());
  publish(layer, x, rows);  // a decode step's pages go to nobody
}

void CudaTransformer::keep_last_row(Hidden& x) { static_cast<CudaActivations&>(x).keep_last_row(); }

void CudaTransformer::attend(int32_t layer, Hidden& hidden, const KvLease& kv, TokenRange chunk, PageRange pages,
                             RowRange rows) {
  auto& x = static_cast<CudaActivations&>(hidden);
  RUNAHEAD_CHECK(pages.begin >= 0 && pages.end <= chunk.end_page(), "a chunk attends to its visible pages");
  if (pages.begin == pages.end) return;
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  std::vector<const uint16_t*> table;
  KvLease& own = *x.places().front().kv;
  RUNAHEAD_CHECK(&own == &kv, "the lease that the chunk was projected into");
  for (int32_t p = 0; p < pages.end; ++p) table.push_back(p < pages.begin ? nullptr : page_to_read(own, layer, p));
  if (table.size() > x.pages.size())
    x.pages = need_device_array<const uint16_t*>(ops_, static_cast<size_t>(kv.num_pages()));
  x.pages.fill(table);
  ops_.attend({.queries = x.queries.data(),
               .pages = x.pages.data(),
               .value_offset = value_offset(),
               .row_begin = rows.begin,
               .row_end = rows.end,
               .position = x.places().front().position,
               .page_begin = pages.begin,
               .page_end = pages.end,
               .heads = shape().num_heads,
               .kv_heads = shape().num_kv_heads,
               .padded_dim = padded_dim_,
               .anew = pages.begin == 0,
               .sums = x.sums.data(),
               .state = x.state.data()});
}

void CudaTransformer::finish_layer(int32_t layer, Hidden& hidden, RowRange rows) {
  auto& x = static_cast<CudaActivations&>(hidden);
  const CudaLayer& w = weights_.layers[static_cast<size_t>(layer)];
  const ModelShape& s = shape();
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  const auto begin = static_cast<size_t>(rows.begin), heads_depth = static_cast<size_t>(w.attention_out.k);
  uint16_t* mixed = x.operand.at(begin * heads_depth);
  ops_.finish_attention({.sums = x.sums.data(),
                         .state = x.state.data(),
                         .row_begin = rows.begin,
                         .row_end = rows.end,
                         .heads = s.num_heads,
                         .head_dim = s.head_dim,
                         .padded_dim = padded_dim_,
                         .out = x.operand.data(),
                         .out_stride = w.attention_out.k});
  multiply(w.attention_out, mixed, rows.size(), cuda::Epilogue::kAdd, x.row(rows.begin), s.model_dim, x.of_prefill());
  switch (config_.layer.ffn) {
    case FfnKind::kSiluGated:
      normalize(w.ffn_norm, config_.layer.norm, x, rows);
      multiply(w.gate_up, x.operand.data(), rows.size(), cuda::Epilogue::kSiluMul, x.inner.data(), w.down.k,
               x.of_prefill());
      break;
  }
  multiply(w.down, x.inner.data(), rows.size(), cuda::Epilogue::kAdd, x.row(rows.begin), s.model_dim, x.of_prefill());
}

void CudaTransformer::logits(Hidden& hidden, std::span<float> out) {
  auto& x = static_cast<CudaActivations&>(hidden);
  logits_of_rows(x, {x.rows() - 1, x.rows()}, out);
}

void CudaTransformer::logits_of_rows(CudaActivations& x, RowRange rows, std::span<float> out) {
  RUNAHEAD_CHECK(out.size() == static_cast<size_t>(rows.size()) * static_cast<size_t>(shape().vocab_size),
                 "logits have a row a token");
  const auto logits = need_device_array<float>(ops_, out.size());
  multiply_by_head(x, rows, logits.data());
  ops_.to_host(out.data(), logits.data(), out.size_bytes());
  check_device();
}

void CudaTransformer::multiply_by_head(CudaActivations& x, RowRange rows, float* logits) {
  normalize(weights_.output_norm, config_.output_norm, x, rows);
  multiply(weights_.head, x.operand.data(), rows.size(), cuda::Epilogue::kStore, logits, shape().vocab_size,
           /*of_prefill=*/false);  // seldom of more than one row
}

Result<void> CudaTransformer::score_rows(Hidden& hidden, RowRange rows, std::span<const TokenId> next, int32_t top,
                                         std::span<SampledToken> out) {
  auto& x = static_cast<CudaActivations&>(hidden);
  const auto vocab = static_cast<size_t>(shape().vocab_size), count = static_cast<size_t>(rows.size());
  RUNAHEAD_CHECK(rows.begin >= 0 && rows.begin < rows.end && rows.end <= x.rows(), "rows of the chunk");
  RUNAHEAD_CHECK(next.size() == count && out.size() == count, "a row has one token behind it");
  std::vector<float> logits(count * vocab);
  logits_of_rows(x, rows, logits);
  for (size_t row = 0; row < count; ++row)
    out[row] = TRY(score(std::span(logits).subspan(row * vocab, vocab), next[row], top));
  return {};
}

}  // namespace runahead
