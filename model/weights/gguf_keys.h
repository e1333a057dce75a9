// GgufKeys: keys and values as they stand in a GGUF file's header, for models that come in other files (hf_folder.h): what they
// say goes the same way as what a GGUF says, through GgufParser's checks. Private to model/weights.
//   memory  owns its bytes; build() copies them.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/weights/gguf_parser.h"

namespace runahead {

class GgufKeys {
 public:
  void u32(std::string_view key, uint64_t value) {
    begin(key, GgufValueType::kU32), number(static_cast<uint32_t>(value));
  }
  void f32(std::string_view key, double value) { begin(key, GgufValueType::kF32), number(static_cast<float>(value)); }
  void boolean(std::string_view key, bool value) {
    begin(key, GgufValueType::kBool), number(static_cast<uint8_t>(value));
  }
  void str(std::string_view key, std::string_view value) { begin(key, GgufValueType::kString), text(value); }
  void strings(std::string_view key, const std::vector<std::string>& values) {
    list(key, GgufValueType::kString, values.size());
    for (const std::string& value : values) text(value);
  }
  void i32s(std::string_view key, const std::vector<int32_t>& values) {
    list(key, GgufValueType::kI32, values.size()), raw(values.data(), values.size() * sizeof(int32_t));
  }
  void f64s(std::string_view key, const std::vector<double>& values) {
    list(key, GgufValueType::kF64, values.size()), raw(values.data(), values.size() * sizeof(double));
  }
  void bytes(std::string_view key, std::span<const std::byte> values) {
    list(key, GgufValueType::kU8, values.size()), raw(values.data(), values.size());
  }
  void booleans(std::string_view key, const std::vector<bool>& values) {
    list(key, GgufValueType::kBool, values.size());
    for (const bool value : values) number(static_cast<uint8_t>(value));
  }

  // The file: these keys, and no tensors.
  std::vector<std::byte> build() const {
    GgufKeys head;
    head.number(uint32_t{0x46554747}), head.number(uint32_t{3}), head.number(uint64_t{0}), head.number(count_);
    head.raw(bytes_.data(), bytes_.size());
    return std::move(head.bytes_);
  }

 private:
  void begin(std::string_view key, GgufValueType type) {
    ++count_;
    text(key), number(static_cast<uint32_t>(type));
  }
  void list(std::string_view key, GgufValueType type, uint64_t count) {
    begin(key, GgufValueType::kArray), number(static_cast<uint32_t>(type)), number(count);
  }
  void raw(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  template <class T>
  void number(T value) {
    raw(&value, sizeof(value));
  }
  void text(std::string_view value) { number(uint64_t{value.size()}), raw(value.data(), value.size()); }

  uint64_t count_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace runahead
