// CudaActivations: the Hidden of a CudaTransformer. Rows are tokens: a chunk's, or one of each sequence of a decode batch.
#pragma once

#include <vector>

#include "model/cuda_transformer/cuda_weights.h"
#include "model/engine.h"

namespace runahead {

class CudaActivations final : public Hidden {
 public:
  struct Place {
    KvLease* kv = nullptr;
    int32_t position = -1;
  };

  CudaActivations(const cuda::CudaOps& ops, const ModelConfig& config, int32_t padded_dim, int32_t rows);

  int32_t rows() const { return static_cast<int32_t>(places_.size()); }
  const std::vector<Place>& places() const { return places_; }
  // Where each row stands; computes the rotary angles (in double, so that long contexts keep their precision).
  void place(std::vector<Place> places);
  void keep_last_row();
  bool of_prefill() const { return of_prefill_; }
  void set_decodes() { of_prefill_ = false; }

  float* row(int32_t r) const { return x.at(static_cast<size_t>(r) * model_dim_); }
  float* qkv_row(int32_t r) const { return qkv.at(static_cast<size_t>(r) * qkv_dim_); }
  float* angles(int32_t r) const { return cos_sin.at(static_cast<size_t>(r) * rotated_); }
  uint16_t* queries_row(int32_t r) const { return queries.at(static_cast<size_t>(r) * queries_dim_); }

  DeviceArray<float> x;  // [rows, model_dim]
  DeviceArray<float> qkv;  // [rows, (num_heads + 2 num_kv_heads) head_dim]
  DeviceArray<float> cos_sin;  // [rows, 2, rotated / 2]
  DeviceArray<uint16_t> queries;  // [rows, num_heads, padded head_dim]
  DeviceArray<float> sums;  // likewise
  DeviceArray<float> state;  // [rows, num_heads, 2]
  DeviceArray<uint16_t> operand;  // [rows, the widest input of a product]
  DeviceArray<uint16_t> inner;  // [rows, ffn_dim], zeros behind
  DeviceArray<uint16_t*> keys;  // [rows]
  DeviceArray<const uint16_t*> pages;  // as many as were needed so far

 private:
  const cuda::CudaOps& ops_;
  const RopeConfig& rope_;
  size_t model_dim_, qkv_dim_, rotated_, queries_dim_;
  std::vector<Place> places_;
  bool of_prefill_ = true;  // rows of one sequence, not of a decode batch
};

}  // namespace runahead
