// Gguf: a model file, opened read-only and checked once. GGUF versions 2 and 3, little-endian, one file or the parts of
// a split one (`name-00001-of-0000N.gguf`: open the first). Nothing in the file is trusted: sizes are overflow-checked,
// counts are bounded by base/limits.h and by the bytes left, types are checked before a value is read. A folder of Hugging
// Face's is opened as the GGUF that it would have been converted to (model/weights/hf_folder.h).
//   memory  the files stay mapped for the Gguf's life; every string_view and tensor span below points into them.
//   threads immutable once open: any number of threads may read.
// Format: gguf.md of ggml's documents; what is taken and refused: docs/models.md.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "kernels/quant_blocks.h"
#include "model/weights/kv_override.h"

namespace runahead {

struct TensorInfo {
  std::string_view name;
  QuantType type = QuantType::kF32;
  int32_t num_dims = 0;  // 1 to 4
  std::array<int64_t, 4> dims{1, 1, 1, 1};  // dims[0] is contiguous: a matrix [rows, cols] has dims {cols, rows}
  std::span<const std::byte> bytes;  // aligned to at least 8 bytes in the file

  int64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
};

class GgufParser;
class HfFolder;

// What a Gguf that is made of other files points into beside them. Neither container moves what it holds.
struct GgufMemory {
  std::deque<std::string> names;
  std::deque<std::vector<std::byte>> bytes;
};

// A key or tensor's name for a message, in quotes: what is not printable ASCII as '?', at most 80 bytes.
std::string quoted(std::string_view name);

class Gguf {
 public:
  // kNotFound, or kInvalidModel / kUnsupported with the file's name and what is wrong with it. Overrides count as if they
  // stood in the file; one that does not fit what stands there is kInvalidArgument.
  static Result<Gguf> open(const std::filesystem::path& path, std::vector<KvOverride> overrides = {});
  // One whole file in memory, which must outlive the Gguf. `name` stands in messages.
  static Result<Gguf> parse(std::span<const std::byte> file, std::string name);

  bool has(std::string_view key) const { return values_.contains(key); }
  std::vector<std::string_view> keys() const;  // sorted
  // The value for a message: `3`, `'yarn'`, `an array of 32 values`.
  std::string shown(std::string_view key) const;
  // A missing key or one of another type is kInvalidModel and names the key. u64 takes every non-negative integer, f32
  // floats of 32 and 64 bits, number every number and a boolean as 0 or 1.
  Result<uint64_t> u64(std::string_view key) const;
  Result<float> f32(std::string_view key) const;
  Result<double> number(std::string_view key) const;
  Result<bool> boolean(std::string_view key) const;
  Result<std::string_view> str(std::string_view key) const;
  Result<std::vector<std::string_view>> strings(std::string_view key) const;
  Result<std::vector<int32_t>> i32s(std::string_view key) const;  // 32-bit integers, signed or not
  Result<std::vector<float>> f32s(std::string_view key) const;
  Result<std::vector<double>> f64s(std::string_view key) const;
  Result<std::vector<bool>> booleans(std::string_view key) const;
  Result<std::span<const std::byte>> bytes(std::string_view key) const;  // 8-bit integers, signed or not
  Result<std::vector<uint64_t>> u64s(std::string_view key) const;  // one integer comes as a list of one
  Result<uint64_t> array_size(std::string_view key) const;
  // The fallback if the key is missing; still an error if it has another type.
  Result<uint64_t> u64_or(std::string_view key, uint64_t fallback) const;
  Result<float> f32_or(std::string_view key, float fallback) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;

  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in file order, over all parts
  std::vector<std::string_view> tensor_names() const;
  bool has_tensor(std::string_view name) const { return tensor_index_.contains(name); }
  Result<TensorInfo> tensor(std::string_view name) const;
  Result<QuantMatrixView> matrix(std::string_view name) const;  // two dimensions, but for trailing ones of 1
  // Of a tensor of three dimensions, `count` matrices one behind the other: one of them.
  Result<QuantMatrixView> matrix_of(std::string_view name, int32_t index, int32_t count) const;
  // A tensor of one dimension, but for trailing ones of 1, and `size` elements, as floats.
  Result<std::vector<float>> vector(std::string_view name, int64_t size) const;

  Result<void> set_overrides(std::vector<KvOverride> overrides);

  // XXH3-128 over every byte of every part, as 32 hex digits: part of Engine::fingerprint. About 10 ms for 100 MB. Drops
  // the pages that it has read.
  std::string bytes_hash() const;
  // A hash of the bytes and what is overridden; the bytes' own if nothing is.
  std::string with_overrides(std::string bytes_hash) const;
  // The same without the tokenizer's keys, which change no weights.
  std::string with_weight_overrides(std::string bytes_hash) const;
  std::string content_hash() const { return with_overrides(bytes_hash()); }
  uint64_t file_bytes() const;
  // After the weights were repacked: the kernel may drop the mapped pages; they are read again when touched.
  void drop_pages() const;

 private:
  friend class GgufParser;
  friend class HfFolder;
  struct Value {
    uint32_t type = 0;  // GGUF's number of the value's type, or of an array's elements
    bool is_array = false;
    uint64_t count = 1;
    const std::byte* data = nullptr;  // little-endian; walked and checked by the parser
  };

  Result<const Value*> find(std::string_view key, bool is_array, std::string_view otherwise) const;
  std::unexpected<Error> bad(std::string message) const;
  std::string remedy() const;  // of a message's end
  std::unexpected<Error> bad_key(std::string_view key, std::string_view what) const;
  std::string folded(std::string bytes_hash, bool tokenizer_too) const;
  Result<GgufParser> add_part(const std::filesystem::path& path, uint64_t part);

  std::string name_;
  std::vector<MappedFile> files_;
  std::vector<std::span<const std::byte>> parts_;
  std::unique_ptr<GgufMemory> memory_;  // of a folder
  std::unordered_map<std::string_view, Value> values_;  // of the first part, and overrides
  std::shared_ptr<const std::vector<KvOverride>> overrides_;  // values_ points into them
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

}  // namespace runahead
