// GgufParser: reads one part's header into a Gguf. Private to model/weights/gguf*.cc.
#pragma once

#include <optional>

#include "model/weights/gguf.h"

namespace runahead {

// GGUF's numbers of value types.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Bytes of one value; 0 for strings, arrays and unknown numbers.
uint64_t scalar_bytes(uint32_t type);

class GgufParser {
 public:
  GgufParser(Gguf& out, std::span<const std::byte> file, std::string name)
      : out_(out), file_(file), name_(std::move(name)) {
    own_.name_ = name_;
  }

  // Reads the part: keys into out.values_ if it is the first part, tensors always. `part` counts from 0.
  Result<void> run(uint64_t part);
  // split.count and split.tensors.count as this part states them; 1 and nothing if the file is whole.
  uint64_t split_count() const { return split_count_; }
  std::optional<uint64_t> split_tensors() const { return split_tensors_; }

 private:
  using Value = Gguf::Value;

  Result<void> read_header();
  Result<void> read_values();
  Result<Value> read_value();
  Result<Value> read_array();
  Result<void> read_own_keys(uint64_t part);
  Result<void> read_tensors();
  Result<TensorInfo> read_tensor_info();
  Result<void> place_tensor(TensorInfo& info, uint64_t offset, uint64_t data_begin);
  Result<void> check_apart(std::span<const TensorInfo> tensors) const;

  Result<std::span<const std::byte>> take_bytes(uint64_t count, std::string_view what);
  template <class T>
  Result<T> take_number(std::string_view what);
  Result<std::string_view> take_string(uint64_t max, std::string_view what);
  uint64_t remaining() const { return file_.size() - at_; }
  std::unexpected<Error> bad(std::string message) const;
  std::unexpected<Error> cut_short(std::string message) const;  // fewer bytes than the file says it has

  Gguf& out_;
  std::span<const std::byte> file_;
  std::string name_;
  size_t at_ = 0;
  uint64_t num_tensors_ = 0, num_values_ = 0;
  uint64_t alignment_ = 32;  // bytes; GGUF's default
  uint64_t split_count_ = 1;
  std::optional<uint64_t> split_tensors_;
  Gguf own_;                       // this part's keys behind the typed getters
  std::vector<uint64_t> offsets_;  // of this part's tensors, from the start of its data
};

}  // namespace runahead
