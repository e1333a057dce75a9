// CudaTransformer: the Engine on a GPU, or on the tests' emulation of one: whatever kernels/cuda's op table stands for. It is
// host code; a call enqueues work and returns, but for those that give numbers to the host.
//   numbers  weights, operands of products and K/V pages are bf16, sums and the residual fp32. Rows do not depend on each other,
//            nor on how a chunk is cut into calls; the bits are those of one kind of device, which the fingerprint names. Prefill
//            and decode divide a softmax otherwise, and a library's products are prefill's only (ADR 25): a token's K/V has other
//            last bits when a retry prefills what was decoded.
//   pages    K, then V: [num_kv_heads][kPageTokens][padded head_dim] bf16, on the device, with their twins on the host
//            (model/kv_pages.h): those of a chunk are there when project_qkv returns. With pages_of_bf16 the twins have the form
//            of the processor's bf16 mode, and a chain may have both; which of them computes what then decides the last bits.
//   threads  one caller at a time (the compute lane).
//   owner    it owns the open model file and the weights on the device; a Hidden owns its activations there.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/ops.h"
#include "model/cuda_transformer/cuda_stream.h"
#include "model/cuda_transformer/cuda_weights.h"
#include "model/cuda_transformer/decode_buffers.h"
#include "model/cuda_transformer/page_copies.h"
#include "model/engine.h"
#include "model/weights/kv_override.h"

namespace runahead {

struct CudaEngineOptions {
  std::filesystem::path model;
  std::vector<KvOverride> overrides = {};
  bool pages_of_bf16 = false;
  LoadProgress progress = {};  // may be empty
};

class CudaTransformer final : public Engine {
 public:
  // The head's padded length is one of cuda::kHeadDims: kUnsupported if there is none. `ops` outlives the engine.
  static Result<std::unique_ptr<CudaTransformer>> load(const cuda::CudaOps& ops, const CudaEngineOptions& options);

  const ModelShape& shape() const override { return config_.shape; }
  size_t page_bytes() const override;
  Result<std::unique_ptr<DevicePages>> device_pages(int64_t count) override;
  DeviceAccess device() override { return device_access(ops_); }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& compute_name() const override { return compute_name_; }

  int32_t rows_at_once() const override;
  std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) override;
  void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) override;
  void keep_last_row(Hidden& x) override;
  void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) override;
  void finish_layer(int32_t layer, Hidden& x, RowRange rows) override;
  void logits(Hidden& x, std::span<float> out) override;
  Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                          std::span<SampledToken> out) override;
  void wait() override;
  bool publishes_later() const override { return true; }
  void when_published(std::function<void()> call) override { copies_.when_done(std::move(call)); }
  void decode(std::span<const DecodeRow> batch, std::span<float> out) override;
  bool decodes_as_it_prefills() const override { return false; }

 private:
  CudaTransformer(const cuda::CudaOps& ops, Gguf file, ModelConfig config);
  void normalize(const DeviceArray<float>& gain, const NormConfig& norm, CudaActivations& x, RowRange rows);
  std::string choose_products();
  void multiply(const CudaMatrix& weights, const uint16_t* operand, int32_t rows, cuda::Epilogue epilogue, void* out,
                int32_t out_stride, bool of_prefill);
  void embed_rows(const int32_t* tokens, CudaActivations& x);
  void project(int32_t layer, CudaActivations& x, RowRange rows, uint16_t* const* keys);
  uint16_t* key_of(int32_t layer, const CudaActivations::Place& place);
  void multiply_by_head(CudaActivations& x, RowRange rows, float* logits);
  void upload_step(std::span<const DecodeRow> batch, DecodeShape step);
  void enqueue_step(DecodeShape step);
  void clear_page(KvLease& kv, int32_t layer, int32_t page);
  const uint16_t* page_to_read(KvLease& kv, int32_t layer, int32_t page);
  void publish(int32_t layer, const CudaActivations& x, RowRange rows);
  void logits_of_rows(CudaActivations& x, RowRange rows, std::span<float> out);
  void check_device() const;
  size_t device_page_bytes() const;
  cuda::RepackArgs repack_args(std::byte* from, std::byte* to, bool to_host_form) const;
  int64_t value_offset() const;  // elements from a page's K to its V

  const cuda::CudaOps& ops_;
  Gguf file_;
  ModelConfig config_;
  int32_t padded_dim_ = 0;
  std::optional<KvLayout> host_layout_;  // of twins in the form of bf16
  DeviceArray<std::byte> arriving_, leaving_;  // one of them each, on its way
  CudaWeights weights_;
  std::string fingerprint_, compute_name_;
  PageCopies copies_;
  std::unique_ptr<DecodeBuffers> decode_;
};

}  // namespace runahead
