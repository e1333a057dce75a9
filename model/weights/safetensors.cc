#include "model/weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/limits.h"
#include "model/weights/gguf.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;

struct DType {
  std::string_view name;
  uint64_t bits;
};
// Those of the format; what of them is read says model/weights/hf_tensors.cc.
constexpr DType kDTypes[] = {{"BOOL", 8},    {"U8", 8},   {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8},
                             {"F8_E8M0", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U16", 16},
                             {"I16", 16},    {"F16", 16}, {"BF16", 16},   {"U32", 32},    {"I32", 32},
                             {"F32", 32},    {"U64", 64}, {"I64", 64},    {"F64", 64},    {"C64", 64}};

struct Entry {
  SafeTensor tensor;
  std::optional<uint64_t> begin, end;  // in the data
  bool has_type = false, has_shape = false;
};

// Takes the header as the parser comes through it: an object of objects, each with three members, and __metadata__, whose texts
// say nothing about the weights.
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  std::vector<Entry> entries;
  std::string error;

  bool null() override { return refuse_value(); }
  bool boolean(bool) override { return refuse_value(); }
  bool number_float(number_float_t, const string_t&) override { return refuse_value(); }
  bool binary(binary_t&) override { return refuse_value(); }
  bool number_integer(number_integer_t value) override {
    return value < 0 ? refuse_value() : number_unsigned(static_cast<number_unsigned_t>(value));
  }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(std::size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(std::size_t) override;
  bool end_array() override;
  bool parse_error(std::size_t at, const std::string&, const json::exception&) override {
    return refuse("its header is no valid JSON (at byte " + std::to_string(kLengthBytes + at) + ")");
  }

 private:
  bool refuse(std::string what) {
    if (error.empty()) error = std::move(what);
    return false;
  }
  bool refuse_value() {
    if (in_metadata_) return refuse("its header's __metadata__ holds more than texts");
    return refuse("its header says " + (member_.empty() ? "something" : runahead::quoted(member_)) + " of " +
                  runahead::quoted(name_) + " as no writer does");
  }
  Entry& entry() { return entries.back(); }

  int depth_ = 0;  // of objects
  bool in_metadata_ = false, in_list_ = false;
  std::string name_, member_;
  std::unordered_set<std::string> names_;
};

bool HeaderReader::start_object(std::size_t) {
  if (in_list_ || in_metadata_ || depth_ > 1) return refuse_value();
  if (++depth_ == 1) return true;
  in_metadata_ = name_ == "__metadata__";
  member_.clear();
  if (in_metadata_) return true;
  if (entries.size() == limits::kGgufTensorsMax) return refuse("its header has more tensors than a limit allows");
  entries.emplace_back().tensor.name = name_;
  return true;
}

bool HeaderReader::key(string_t& name) {
  if (in_metadata_) return true;
  if (depth_ == 2) {
    member_ = name;
    return true;
  }
  name_ = name;
  if (name.empty() || name.size() > limits::kGgufNameBytesMax)
    return refuse("a tensor's name has " + std::to_string(name.size()) + " bytes");
  return names_.insert(name).second || refuse("the tensor " + runahead::quoted(name) + " comes twice");
}

bool HeaderReader::end_object() {
  if (depth_ == 2 && !in_metadata_) {
    const Entry& e = entry();
    if (!e.has_type || !e.has_shape || !e.end)
      return refuse("its header lacks the dtype, the shape or the data_offsets of " + runahead::quoted(name_));
  }
  in_metadata_ = false;
  --depth_;
  return true;
}

bool HeaderReader::start_array(std::size_t) {
  if (depth_ != 2 || in_metadata_ || in_list_) return refuse_value();
  Entry& e = entry();
  const bool shape = member_ == "shape" && !e.has_shape, offsets = member_ == "data_offsets" && !e.begin;
  if (!shape && !offsets) return refuse_value();
  e.has_shape = e.has_shape || shape;
  return in_list_ = true;
}

bool HeaderReader::end_array() {
  in_list_ = false;
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (in_metadata_) return true;
  if (depth_ != 2 || in_list_ || member_ != "dtype" || entry().has_type) return refuse_value();
  entry().has_type = true;
  entry().tensor.type = value;
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (!in_list_) return refuse_value();
  Entry& e = entry();
  if (member_ == "shape") {
    SafeTensor& t = e.tensor;
    if (t.num_dims == static_cast<int32_t>(t.shape.size()))
      return refuse("the tensor " + runahead::quoted(t.name) + " has more than 4 dimensions");
    if (value == 0 || value > INT64_MAX)
      return refuse("the tensor " + runahead::quoted(t.name) + " has no weights, or too many");
    t.shape[static_cast<size_t>(t.num_dims++)] = static_cast<int64_t>(value);
    return true;
  }
  if (e.end) return refuse_value();
  (e.begin ? e.end : e.begin) = value;
  return true;
}

// Bytes of a tensor by its type and shape; nothing if they fit no file.
std::optional<uint64_t> bytes_of(const SafeTensor& tensor, uint64_t bits) {
  uint64_t elements = 1;
  for (const int64_t dim : tensor.shape)
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements)) return std::nullopt;
  if (elements > INT64_MAX || __builtin_mul_overflow(elements, bits, &elements) || elements % 8 != 0)
    return std::nullopt;
  return elements / 8;
}

std::unexpected<Error> bad_file(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kInvalidModel, name + ": " + what + "; download the file again");
}

Result<std::string_view> header_of(std::span<const std::byte> file, const std::string& name) {
  uint64_t size = 0;
  if (file.size() < kLengthBytes) return bad_file(name, "the file ends inside its header");
  std::memcpy(&size, file.data(), sizeof(size));
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with("version https://git-lfs"))
    return fail(ErrorCode::kInvalidModel,
                name + ": a pointer of Git LFS, not the weights themselves; fetch them with `git lfs pull`");
  if (size > limits::kSafetensorsHeaderBytesMax)
    return bad_file(name, "this is no file of safetensors: its header claims " + std::to_string(size) + " bytes");
  if (size > file.size() - kLengthBytes)
    return bad_file(name, "the file ends inside its header: its download is incomplete");
  return text.substr(kLengthBytes, size);
}

Result<void> check_size(const Entry& e, const std::string& name) {
  const SafeTensor& t = e.tensor;
  const auto* type = std::ranges::find(kDTypes, t.type, &DType::name);
  if (type == std::end(kDTypes))
    return bad_file(name,
                    "the tensor " + runahead::quoted(t.name) + " has the unknown type " + runahead::quoted(t.type));
  const std::optional<uint64_t> bytes = bytes_of(t, type->bits);
  if (*e.begin > *e.end || !bytes || *e.end - *e.begin != *bytes)
    return bad_file(name,
                    "the tensor " + runahead::quoted(t.name) + " has another number of bytes than its shape says");
  return {};
}

}  // namespace

Result<std::vector<SafeTensor>> read_safetensors(std::span<const std::byte> file, const std::string& name) {
  const std::string_view header = TRY(header_of(file, name));
  HeaderReader reader;
  if (!header.starts_with('{')) return bad_file(name, "its header is no JSON object");
  if (!json::sax_parse(header, &reader)) return bad_file(name, reader.error);
  const auto data = file.subspan(kLengthBytes + header.size());
  std::ranges::stable_sort(reader.entries, {}, [](const Entry& e) { return *e.begin; });
  std::vector<SafeTensor> tensors;
  uint64_t at = 0;
  for (Entry& e : reader.entries) {
    TRY(check_size(e, name));
    if (*e.begin < at) return bad_file(name, "the tensor " + runahead::quoted(e.tensor.name) + " overlaps another");
    if (*e.begin > at)
      return bad_file(name, "bytes before the tensor " + runahead::quoted(e.tensor.name) + " belong to none");
    if (*e.end > data.size())
      return bad_file(
          name, "the tensor " + runahead::quoted(e.tensor.name) + " ends behind the file: its download is incomplete");
    e.tensor.bytes = data.subspan(*e.begin, *e.end - *e.begin);
    at = *e.end;
    tensors.push_back(std::move(e.tensor));
  }
  if (at != data.size())
    return bad_file(name, std::to_string(data.size() - at) + " bytes at its end belong to no tensor");
  return tensors;
}

}  // namespace runahead
