// The op table: every computation of the model, behind one interface for all instruction sets, compute modes and the
// naive reference. model/transformer composes these ops; nothing above it knows which table runs.
//
//   threads  pure functions on views: no state, any thread, disjoint outputs. Denormals must be flushed (ThreadTeam).
//   exact    a row's result does not depend on the other rows of the call, nor on how a call is split into calls over
//            panels or rows; and every instruction set gives the same bits (kernels/cpu/vec.h). The reference does not.
//   formats  an "operand row" is a row of activations in the mode's number format, made by pack_row. Queries, keys
//            and values have the mode's element types (KvLayout). Everything else is fp32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token_range.h"
#include "kernels/compute_mode.h"
#include "kernels/packed_matrix.h"

namespace runahead {

// How K and V of kPageTokens tokens lie in one page: all heads' K, then all heads' V. As many elements along the summed
// dimension as fill four bytes are neighbours, so that a page is a ready operand and is never repacked.
struct KvLayout {
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t key_bytes = 4;  // of an element
  int32_t value_bytes = 4;
  bool token_scales = false;  // a head's K and its V each end with one fp32 scale a token: [kPageTokens]
  bool key_sums = false;  // behind its scales K has one int32 a token: [kPageTokens]

  size_t key_head_bytes() const { return head_bytes(key_bytes) + (key_sums ? kPageTokens * sizeof(int32_t) : 0); }
  size_t value_head_bytes() const { return head_bytes(value_bytes); }
  size_t page_bytes() const { return (key_head_bytes() + value_head_bytes()) * num_kv_heads; }
  // [head_dim / pack, kPageTokens, pack], pack = 4 / key_bytes
  size_t key_offset(int32_t head) const { return key_head_bytes() * head; }
  // [kPageTokens / pack, head_dim, pack], pack = 4 / value_bytes
  size_t value_offset(int32_t head) const { return key_head_bytes() * num_kv_heads + value_head_bytes() * head; }

 private:
  size_t head_bytes(int32_t element_bytes) const {
    return static_cast<size_t>(kPageTokens) * (head_dim * element_bytes + (token_scales ? sizeof(float) : 0));
  }
};

enum class Epilogue {
  kStore,  // out[r, n] = y[r, n]
  kAdd,  // out[r, n] += y[r, n]: the residual
  kSiluMul,  // out[r, n / 2] = silu(gate) * up; each panel holds 16 gate rows, then the 16 up rows of the same columns
  kGeluMul,  // out[r, n / 2] = gelu(gate) * up, likewise; GELU by its tanh formula
};
inline constexpr bool is_gated(Epilogue e) { return e == Epilogue::kSiluMul || e == Epilogue::kGeluMul; }

// The activations of a product: operand rows fit the product that they are made for.
struct Operand {
  int32_t k = 0;  // values of a row, a multiple of 32
  int32_t rows = 0;
  PanelFormat weights = PanelFormat::kFloat32;  // PackedMatrix::widest() of the other side
};

// y = a W^T over the panels [panel_begin, panel_end) of W.
struct GemmArgs {
  const std::byte* a = nullptr;  // operand.rows rows
  Operand operand;
  const Panel* panels = nullptr;  // of W
  int32_t panel_begin = 0;
  int32_t panel_end = 0;
  Epilogue epilogue = Epilogue::kStore;
  float* out = nullptr;  // [rows, out_stride]; column 0 belongs to panel 0
  size_t out_stride = 0;
  std::byte* scratch = nullptr;  // panel_scratch_bytes(k), 64-byte aligned, of this thread
};

// Some rows of queries of one KV head, with the state of their online softmax, in the mode's own layout. Row r is the
// query of head r % group of token r / group; the tokens are consecutive. Rows may be stored and finished by different
// threads at the same time.
struct AttentionTile {
  std::byte* data = nullptr;  // attention_tile_bytes(rows, head_dim), 64-byte aligned, zeroed once
  int32_t rows = 0;
  int32_t group = 1;
  int32_t head_dim = 0;
};

// A norm of `count` values. Rows are padded by zeros, in x, gain and bias alike, to a multiple of 16. out may be x.
struct NormArgs {
  const float* x = nullptr;  // [padded]
  const float* gain = nullptr;  // [padded]
  const float* bias = nullptr;  // [padded], or null: none; of layer_norm
  float epsilon = 0;
  int32_t count = 0;  // RMS: anywhere among the padding; LayerNorm: the first ones
  int32_t padded = 0;
  float* out = nullptr;  // [padded]
};

// One online-softmax step of a tile over one page; a row sees the keys of tokens up to its own. The order of pages decides the
// last bits: the engine's is ascending.
struct AttendArgs {
  AttentionTile tile;
  int32_t position = 0;  // of the tile's first token
  int32_t page_position = 0;  // of the page's first token; <= position
  bool anew = false;  // the first page: what the tile held is forgotten
  int32_t window = 0;  // tokens that a row sees, its own included, the last ones; 0: all
  float soft_cap = 0;  // scores, in powers of two, become cap * tanh(score / cap); 0: they stay
  const std::byte* keys = nullptr;  // the page at key_offset(head)
  const std::byte* values = nullptr;  // the page at value_offset(head)
  // The same of the page that comes next, or null: attend_page_part fetches them ahead, where the processor's own
  // prefetchers stop at every 4 KiB.
  const std::byte* next_keys = nullptr;
  const std::byte* next_values = nullptr;
};
// Rows of a tile that attend_page_part takes: the groups of most models have 3 to 5 heads.
inline constexpr int32_t kPartRowsMax = 5;
inline constexpr int32_t kHeadDimMax = 512;  // twice the largest head of a published model; buffers on the stack
inline constexpr float kNoScore = -1e30f;  // below every score, and finite: no NaN from inf - inf

struct OpTable {
  std::string_view isa;  // "avx512bf16", "avx512", "avx2", "generic", "reference"
  ComputeMode mode = ComputeMode::kFp32;
  int32_t key_element_bytes = 4;
  int32_t value_element_bytes = 4;
  bool kv_token_scales = false;
  bool kv_key_sums = false;

  size_t (*row_bytes)(int32_t k) = nullptr;  // of one operand row
  size_t (*panel_scratch_bytes)(int32_t k) = nullptr;  // of GemmArgs::scratch
  size_t (*attention_tile_bytes)(int32_t rows, int32_t head_dim) = nullptr;

  void (*rms_norm)(const NormArgs& args) = nullptr;  // x * gain / sqrt(mean(x^2) + epsilon)
  void (*layer_norm)(const NormArgs& args) = nullptr;  // (x - mean(x)) * gain / sqrt(variance(x) + epsilon) + bias
  // In place, k a multiple of 16.
  void (*gelu)(float* x, int32_t k) = nullptr;  // by its tanh formula
  void (*soft_cap)(float* x, float cap, int32_t k) = nullptr;  // cap * tanh(x / cap)
  void (*pack_row)(const float* x, const Operand& operand, std::byte* out) = nullptr;
  void (*gemm)(const GemmArgs& args) = nullptr;

  // Rotates the pairs (i, i + head_dim / 2) of one head by the position's angles. cos_sin: [2, head_dim / 2].
  void (*rotate)(float* head, const float* cos_sin, int32_t head_dim) = nullptr;
  // scale: log2(e) times that of the scores; the softmax is one of powers of two.
  void (*store_query)(const float* head, float scale, const AttentionTile& tile, int32_t row) = nullptr;
  void (*copy_query)(const AttentionTile& from, int32_t from_row, const AttentionTile& to, int32_t to_row) = nullptr;
  // One token's head into slot `slot` of a page, at key_offset or value_offset.
  void (*store_key)(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) = nullptr;
  void (*store_value)(const float* head, int32_t head_dim, int32_t slot, std::byte* values) = nullptr;
  void (*attend_page)(const AttendArgs& args) = nullptr;
  // attend_page in two halves, bit by bit, for tiles of up to kPartRowsMax rows: what a page gives, whatever the others
  // give, as part [rows, part_row_floats(head_dim)]; and `count` such parts of consecutive pages taken into the tile, in
  // order, the first of them at position 0 if `anew`. Null in the reference.
  size_t (*part_row_floats)(int32_t head_dim) = nullptr;
  void (*attend_page_part)(const AttendArgs& args, float* part) = nullptr;
  void (*fold_page_parts)(const AttentionTile& tile, bool anew, const float* parts, int32_t count) = nullptr;
  // out [head_dim]: the row's mix of the values of all pages.
  void (*finish_attention)(const AttentionTile& tile, int32_t row, float* out) = nullptr;

  // Issues the mode's dot instruction, register to register, `rounds` times; returns the operations done (a multiply
  // and an add are two).
  double (*issue_dots)(int64_t rounds) = nullptr;

  KvLayout kv_layout(int32_t num_kv_heads, int32_t head_dim) const {
    return {num_kv_heads, head_dim, key_element_bytes, value_element_bytes, kv_token_scales, kv_key_sums};
  }
};

// The tables that this build has and this processor can run, best instruction set first; the reference is not among
// them.
std::span<const OpTable* const> runnable_ops();
const OpTable& reference_ops(ComputeMode mode);

// The table of `mode` whose products are fastest here, timed once at the first call (about 30 ms in all).
// kUnsupported with the list of modes if this build has none.
Result<const OpTable*> select_ops(ComputeMode mode);
// "auto": the fastest mode here that passes the quality gate. tests/bench/quality_gate_test.cc holds the gate.
ComputeMode fastest_mode();

struct KernelTiming {
  std::string isa;
  ComputeMode mode = ComputeMode::kFp32;
  double giga_ops_per_second = 0;  // of the dot instruction on one core, best of several short runs
  double gemm_giga_ops_per_second = 0;  // of a product of 4-bit weights and 48 rows, likewise
  bool chosen = false;  // by select_ops for its mode
};
std::vector<KernelTiming> kernel_report();
// Takes these (but for `chosen`) instead of measuring, if they are of exactly the tables that run here and nothing was
// measured yet; false if not.
bool use_kernel_timings(std::vector<KernelTiming> timings);

}  // namespace runahead
