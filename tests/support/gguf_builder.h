// GgufBuilder: writes small GGUF files for tests. Every field can be made wrong, so that a hostile file is easy to
// build.
#pragma once

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quant_blocks.h"

namespace runahead::test {

class ByteWriter {
 public:
  template <class T>
  ByteWriter& number(T value) {
    const size_t at = bytes.size();
    bytes.resize(at + sizeof(T));
    std::memcpy(bytes.data() + at, &value, sizeof(T));
    return *this;
  }
  ByteWriter& raw(std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
    return *this;
  }
  ByteWriter& text(std::string_view value) {
    number<uint64_t>(value.size());
    return raw(std::as_bytes(std::span(value)));
  }
  void pad_to(size_t alignment) { bytes.resize((bytes.size() + alignment - 1) / alignment * alignment); }

  std::vector<std::byte> bytes;
};

class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the tensors; the key general.alignment is the caller's

  // A value's type number and its bytes as they are.
  ByteWriter& key(std::string_view name, uint32_t type) {
    ++num_values;
    return values_.text(name).number(type);
  }
  void u32(std::string_view name, uint32_t value) { key(name, 4).number(value); }
  void u64(std::string_view name, uint64_t value) { key(name, 10).number(value); }
  void i32(std::string_view name, int32_t value) { key(name, 5).number(value); }
  void f64(std::string_view name, double value) { key(name, 12).number(value); }
  void f32(std::string_view name, float value) { key(name, 6).number(value); }
  void boolean(std::string_view name, bool value) { key(name, 7).number<uint8_t>(value); }
  void str(std::string_view name, std::string_view value) { key(name, 8).text(value); }
  void strings(std::string_view name, const std::vector<std::string>& list) {
    ByteWriter& out = key(name, 9).number<uint32_t>(8).number<uint64_t>(list.size());
    for (const std::string& value : list) out.text(value);
  }
  void i32s(std::string_view name, const std::vector<int32_t>& list) {
    key(name, 9).number<uint32_t>(5).number<uint64_t>(list.size()).raw(std::as_bytes(std::span(list)));
  }
  void booleans(std::string_view name, const std::vector<bool>& list) {
    ByteWriter& out = key(name, 9).number<uint32_t>(7).number<uint64_t>(list.size());
    for (const bool value : list) out.number<uint8_t>(value);
  }
  void f32s(std::string_view name, const std::vector<float>& list) {
    key(name, 9).number<uint32_t>(6).number<uint64_t>(list.size()).raw(std::as_bytes(std::span(list)));
  }

  // dims[0] is contiguous. The bytes are laid out at the next aligned offset.
  void tensor(std::string_view name, const std::vector<uint64_t>& dims, QuantType type,
              std::span<const std::byte> bytes) {
    data_.pad_to(alignment);
    tensor_info(name, dims, static_cast<uint32_t>(type), data_.bytes.size());
    data_.raw(bytes);
  }
  void f32_tensor(std::string_view name, const std::vector<uint64_t>& dims, const std::vector<float>& weights) {
    tensor(name, dims, QuantType::kF32, std::as_bytes(std::span(weights)));
  }
  // The description alone, with any type and offset.
  void tensor_info(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    ++num_tensors;
    infos_.text(name).number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) infos_.number(dim);
    infos_.number(type).number(offset);
  }

  uint64_t num_values = 0, num_tensors = 0;  // what the header claims

  std::vector<std::byte> build() const {
    ByteWriter out;
    out.number<uint32_t>(0x46554747).number(version).number(num_tensors).number(num_values);
    out.raw(values_.bytes).raw(infos_.bytes);
    out.pad_to(alignment);
    out.raw(data_.bytes);
    return std::move(out.bytes);
  }
  void write(const std::filesystem::path& path) const {
    const std::vector<std::byte> bytes = build();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  ByteWriter values_, infos_, data_;
};

}  // namespace runahead::test
