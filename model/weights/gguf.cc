#include "model/weights/gguf.h"

#include <xxhash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "model/weights/gguf_parser.h"
#include "model/weights/hf_folder.h"

namespace runahead {
namespace {

template <class T>
T load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// Nothing for a negative integer or another type.
std::optional<uint64_t> load_non_negative(uint32_t type, const std::byte* data) {
  const auto non_negative = [](int64_t value) {
    return value >= 0 ? std::optional<uint64_t>(static_cast<uint64_t>(value)) : std::nullopt;
  };
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kU8:
      return load<uint8_t>(data);
    case GgufValueType::kU16:
      return load<uint16_t>(data);
    case GgufValueType::kU32:
      return load<uint32_t>(data);
    case GgufValueType::kU64:
      return load<uint64_t>(data);
    case GgufValueType::kI8:
      return non_negative(load<int8_t>(data));
    case GgufValueType::kI16:
      return non_negative(load<int16_t>(data));
    case GgufValueType::kI32:
      return non_negative(load<int32_t>(data));
    case GgufValueType::kI64:
      return non_negative(load<int64_t>(data));
    default:
      return std::nullopt;
  }
}

bool is_type(uint32_t type, GgufValueType wanted) { return type == static_cast<uint32_t>(wanted); }

// The word for it in --override-kv.
std::string_view kind_of(uint32_t type) {
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kF32:
    case GgufValueType::kF64:
      return "float";
    case GgufValueType::kBool:
      return "bool";
    case GgufValueType::kString:
      return "str";
    default:
      return "int";
  }
}

std::string hex_digest(XXH3_state_t* state) {
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  char text[33];
  std::snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
  return text;
}

XXH3_state_t* new_hash() {
  XXH3_state_t* state = XXH3_createState();
  RUNAHEAD_CHECK(state != nullptr, "out of memory");
  XXH3_128bits_reset(state);
  return state;
}

// Nothing for a string.
std::optional<double> load_number(uint32_t type, const std::byte* data) {
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kF32:
      return load<float>(data);
    case GgufValueType::kF64:
      return load<double>(data);
    case GgufValueType::kBool:
      return load<uint8_t>(data) != 0 ? 1 : 0;
    case GgufValueType::kI8:
      return load<int8_t>(data);
    case GgufValueType::kI16:
      return load<int16_t>(data);
    case GgufValueType::kI32:
      return load<int32_t>(data);
    case GgufValueType::kI64:
      return static_cast<double>(load<int64_t>(data));
    default: {
      const std::optional<uint64_t> whole = load_non_negative(type, data);
      return whole ? std::optional<double>(static_cast<double>(*whole)) : std::nullopt;
    }
  }
}

// "-00002-of-00003.gguf" for part 1 of 3.
std::string part_tail(uint64_t part, uint64_t count) {
  char text[64];
  std::snprintf(text, sizeof(text), "-%05" PRIu64 "-of-%05" PRIu64 ".gguf", part + 1, count);
  return text;
}

}  // namespace

std::string quoted(std::string_view name) {
  constexpr size_t kBytesMax = 80;
  std::string text = "'";
  for (const char c : name.substr(0, kBytesMax)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (name.size() > kBytesMax ? "...'" : "'");
}

Result<Gguf> Gguf::parse(std::span<const std::byte> file, std::string name) {
  Gguf gguf;
  gguf.name_ = name;
  gguf.parts_.push_back(file);
  GgufParser parser(gguf, file, name);
  TRY(parser.run(0));
  if (parser.split_count() != 1)
    return fail(ErrorCode::kInvalidModel, name + ": one part of a split model is not enough; open it from its files");
  return gguf;
}

Result<Gguf> Gguf::open(const std::filesystem::path& path, std::vector<KvOverride> overrides) {
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored))
    return open_hf_folder(path, std::move(overrides));
  Gguf gguf;
  gguf.name_ = path.string();
  const uint64_t count = TRY(gguf.add_part(path, 0)).split_count();
  TRY(gguf.set_overrides(std::move(overrides)));
  if (count == 1) return gguf;
  const std::string first_tail = part_tail(0, count), first = path.filename().string();
  if (!first.ends_with(first_tail))
    return gguf.bad("it is the first of " + std::to_string(count) + " parts, so its name must end in " + first_tail +
                    "; give the parts their own names back");
  const std::string stem = first.substr(0, first.size() - first_tail.size());
  for (uint64_t part = 1; part < count; ++part) {
    const GgufParser parser = TRY(gguf.add_part(path.parent_path() / (stem + part_tail(part, count)), part));
    const bool all_read = part + 1 == count;
    const uint64_t tensors = parser.split_tensors().value_or(gguf.tensors_.size());
    if (parser.split_count() != count || (all_read && tensors != gguf.tensors_.size()))
      return gguf.bad("its parts do not belong together; download all of them again");
  }
  return gguf;
}

Result<void> Gguf::set_overrides(std::vector<KvOverride> overrides) {
  if (overrides.empty()) return {};
  overrides_ = std::make_shared<const std::vector<KvOverride>>(std::move(overrides));
  for (const KvOverride& one : *overrides_) {
    const Value value{.type = one.type, .is_array = false, .count = 1, .data = one.value.data()};
    const auto [place, is_new] = values_.try_emplace(one.key, value);
    if (is_new) continue;
    const bool fits = !place->second.is_array && kind_of(place->second.type) == kind_of(one.type);
    if (!fits)
      return fail(ErrorCode::kInvalidArgument,
                  "--override-kv " + one.key + ": the file holds " +
                      (place->second.is_array ? std::string("a list, and lists cannot be overridden")
                                              : std::string(kind_of(place->second.type)) + "; write " + one.key + "=" +
                                                    std::string(kind_of(place->second.type)) + ":VALUE"),
                  "override-kv");
    place->second = value;
  }
  return {};
}

Result<GgufParser> Gguf::add_part(const std::filesystem::path& path, uint64_t part) {
  MappedFile file = TRY(MappedFile::open(path));
  parts_.push_back(file.bytes());
  files_.push_back(std::move(file));
  GgufParser parser(*this, parts_.back(), path.string());
  TRY(parser.run(part));
  return parser;
}

std::unexpected<Error> Gguf::bad(std::string message) const {
  return fail(ErrorCode::kInvalidModel, name_ + ": " + std::move(message));
}

std::string Gguf::remedy() const { return memory_ ? "; download the model again" : "; convert the model again"; }

std::unexpected<Error> Gguf::bad_key(std::string_view key, std::string_view what) const {
  const std::string message = name_ + ": the key " + quoted(key) + " is " + std::string(what);
  return fail(ErrorCode::kInvalidModel, message + remedy(), std::string(key));
}

Result<const Gguf::Value*> Gguf::find(std::string_view key, bool is_array, std::string_view otherwise) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return bad_key(key, "missing");
  if (found->second.is_array != is_array) return bad_key(key, otherwise);
  return &found->second;
}

Result<uint64_t> Gguf::u64(std::string_view key) const {
  const Value* value = TRY(find(key, false, "not a non-negative integer"));
  const auto number = load_non_negative(value->type, value->data);
  if (!number) return bad_key(key, "not a non-negative integer");
  return *number;
}

Result<float> Gguf::f32(std::string_view key) const {
  const Value* value = TRY(find(key, false, "not a float"));
  if (is_type(value->type, GgufValueType::kF64)) return static_cast<float>(load<double>(value->data));
  if (!is_type(value->type, GgufValueType::kF32)) return bad_key(key, "not a float");
  return load<float>(value->data);
}

Result<double> Gguf::number(std::string_view key) const {
  const Value* value = TRY(find(key, false, "not a number"));
  const std::optional<double> number = load_number(value->type, value->data);
  if (!number) return bad_key(key, "not a number");
  return *number;
}

Result<bool> Gguf::boolean(std::string_view key) const {
  const Value* value = TRY(find(key, false, "not a boolean"));
  if (!is_type(value->type, GgufValueType::kBool)) return bad_key(key, "not a boolean");
  return *value->data != std::byte{0};
}

Result<std::string_view> Gguf::str(std::string_view key) const {
  const Value* value = TRY(find(key, false, "not a string"));
  if (!is_type(value->type, GgufValueType::kString)) return bad_key(key, "not a string");
  return std::string_view(reinterpret_cast<const char*>(value->data + 8), load<uint64_t>(value->data));
}

Result<std::vector<std::string_view>> Gguf::strings(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of strings"));
  if (!is_type(value->type, GgufValueType::kString)) return bad_key(key, "not an array of strings");
  std::vector<std::string_view> out;
  out.reserve(value->count);
  const std::byte* at = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto size = load<uint64_t>(at);
    out.emplace_back(reinterpret_cast<const char*>(at + 8), size);
    at += 8 + size;
  }
  return out;
}

Result<std::vector<int32_t>> Gguf::i32s(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of 32-bit integers"));
  if (!is_type(value->type, GgufValueType::kI32) && !is_type(value->type, GgufValueType::kU32))
    return bad_key(key, "not an array of 32-bit integers");
  std::vector<int32_t> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->data, out.size() * sizeof(int32_t));
  return out;
}

Result<std::vector<float>> Gguf::f32s(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of 32-bit floats"));
  if (!is_type(value->type, GgufValueType::kF32)) return bad_key(key, "not an array of 32-bit floats");
  std::vector<float> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->data, out.size() * sizeof(float));
  return out;
}

Result<std::vector<double>> Gguf::f64s(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of 64-bit floats"));
  if (!is_type(value->type, GgufValueType::kF64)) return bad_key(key, "not an array of 64-bit floats");
  std::vector<double> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->data, out.size() * sizeof(double));
  return out;
}

Result<std::vector<bool>> Gguf::booleans(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of booleans"));
  if (!is_type(value->type, GgufValueType::kBool)) return bad_key(key, "not an array of booleans");
  std::vector<bool> out;
  for (uint64_t i = 0; i < value->count; ++i) out.push_back(value->data[i] != std::byte{0});
  return out;
}

Result<std::span<const std::byte>> Gguf::bytes(std::string_view key) const {
  const Value* value = TRY(find(key, true, "not an array of bytes"));
  if (!is_type(value->type, GgufValueType::kI8) && !is_type(value->type, GgufValueType::kU8))
    return bad_key(key, "not an array of bytes");
  return std::span(value->data, value->count);
}

Result<std::vector<uint64_t>> Gguf::u64s(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return bad_key(key, "missing");
  const Value& value = found->second;
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < value.count; ++i) {
    const auto number = load_non_negative(value.type, value.data + i * scalar_bytes(value.type));
    if (!number) return bad_key(key, "not made of non-negative integers");
    out.push_back(*number);
  }
  return out;
}

Result<uint64_t> Gguf::array_size(std::string_view key) const { return TRY(find(key, true, "not an array"))->count; }

Result<uint64_t> Gguf::u64_or(std::string_view key, uint64_t fallback) const {
  return has(key) ? u64(key) : Result<uint64_t>(fallback);
}

Result<float> Gguf::f32_or(std::string_view key, float fallback) const {
  return has(key) ? f32(key) : Result<float>(fallback);
}

Result<bool> Gguf::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : Result<bool>(fallback);
}

std::vector<std::string_view> Gguf::keys() const {
  std::vector<std::string_view> names;
  names.reserve(values_.size());
  for (const auto& [key, value] : values_) names.push_back(key);
  std::ranges::sort(names);
  return names;
}

std::string Gguf::shown(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return "missing";
  const Value& value = found->second;
  if (value.is_array) return "an array of " + std::to_string(value.count) + " values";
  if (is_type(value.type, GgufValueType::kString)) return quoted(*str(key));
  if (is_type(value.type, GgufValueType::kBool)) return *boolean(key) ? "true" : "false";
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", *number(key));
  return text;
}

std::vector<std::string_view> Gguf::tensor_names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const TensorInfo& info : tensors_) names.push_back(info.name);
  return names;
}

Result<TensorInfo> Gguf::tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  if (found == tensor_index_.end()) return bad("the tensor " + quoted(name) + " is missing" + remedy());
  return tensors_[found->second];
}

Result<QuantMatrixView> Gguf::matrix(std::string_view name) const {
  const TensorInfo info = TRY(tensor(name));
  if (info.num_dims < 2 || info.dims[2] != 1 || info.dims[3] != 1)
    return bad("the tensor " + quoted(name) + " is not a matrix" + remedy());
  return QuantMatrixView{.type = info.type, .rows = info.dims[1], .cols = info.dims[0], .data = info.bytes.data()};
}

Result<QuantMatrixView> Gguf::matrix_of(std::string_view name, int32_t index, int32_t count) const {
  const TensorInfo info = TRY(tensor(name));
  if (info.num_dims < 3 || info.dims[2] != count || info.dims[3] != 1)
    return bad("the tensor " + quoted(name) + " does not hold " + std::to_string(count) +
               " matrices; convert the model again");
  const size_t bytes = info.bytes.size() / static_cast<size_t>(count);
  return QuantMatrixView{.type = info.type,
                         .rows = info.dims[1],
                         .cols = info.dims[0],
                         .data = info.bytes.data() + static_cast<size_t>(index) * bytes};
}

Result<std::vector<float>> Gguf::vector(std::string_view name, int64_t size) const {
  const TensorInfo info = TRY(tensor(name));
  if (info.dims[0] != size || info.elements() != size)
    return bad("the tensor " + quoted(name) + " is not a vector of " + std::to_string(size) + " weights" + remedy());
  if (!is_finite(info.type, info.bytes))
    return bad("the tensor " + quoted(name) + " holds weights that are no numbers; download the file again");
  std::vector<float> out(static_cast<size_t>(size));
  dequantize(info.type, info.bytes, out);
  return out;
}

std::string Gguf::bytes_hash() const {
  constexpr size_t kSliceBytes = 64 << 20;  // dropped one by one: hashing takes no memory, however large the file
  XXH3_state_t* state = new_hash();
  for (auto part : parts_)
    while (!part.empty()) {
      const auto slice = part.first(std::min(kSliceBytes, part.size()));
      XXH3_128bits_update(state, slice.data(), slice.size());
      part = part.subspan(slice.size());
      drop_pages();
    }
  return hex_digest(state);
}

std::string Gguf::with_overrides(std::string bytes_hash) const { return folded(std::move(bytes_hash), true); }

std::string Gguf::with_weight_overrides(std::string bytes_hash) const { return folded(std::move(bytes_hash), false); }

std::string Gguf::folded(std::string bytes_hash, bool tokenizer_too) const {
  std::string text = bytes_hash;
  const auto add = [&text](const void* data, uint64_t size) {
    text.append(reinterpret_cast<const char*>(&size), sizeof(size)).append(static_cast<const char*>(data), size);
  };
  for (const KvOverride& one : overrides_ ? *overrides_ : std::vector<KvOverride>()) {
    if (!tokenizer_too && one.key.starts_with("tokenizer.")) continue;
    add(one.key.data(), one.key.size());
    add(&one.type, sizeof(one.type));
    add(one.value.data(), one.value.size());
  }
  if (text == bytes_hash) return text;
  XXH3_state_t* state = new_hash();
  XXH3_128bits_update(state, text.data(), text.size());
  return hex_digest(state);
}

uint64_t Gguf::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto part : parts_) bytes += part.size();
  return bytes;
}

void Gguf::drop_pages() const {
  for (const MappedFile& file : files_) file.drop_pages();
}

}  // namespace runahead
