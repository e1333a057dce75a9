#include "model/weights/gguf_parser.h"

#include <algorithm>
#include <cstring>

#include "base/limits.h"

namespace runahead {
namespace {

constexpr uint32_t kMagic = 0x46554747;                  // "GGUF"
constexpr uint64_t kValueBytesMin = 8 + 4 + 1;           // key length, type, the smallest value
constexpr uint64_t kTensorBytesMin = 8 + 4 + 8 + 4 + 8;  // name length, dims, one dimension, type, offset

// What people hand over in place of a GGUF file, by its first bytes.
struct OtherFile {
  std::string_view begins, is;
};
constexpr OtherFile kOtherFiles[] = {
    {"version https://git-lfs", "a pointer of Git LFS, not the model itself; fetch it with `git lfs pull`"},
    {"<", "a web page, not a model; download the file itself"},
    {"PK", "a PyTorch checkpoint or another zip file; convert the model to GGUF"},
    {"tjgg", "a file of the old format GGJT; convert the model to GGUF"},
    {"fmgg", "a file of the old format GGMF; convert the model to GGUF"},
    {"lmgg", "a file of the old format GGML; convert the model to GGUF"},
};

std::string not_gguf(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const OtherFile& other : kOtherFiles)
    if (text.starts_with(other.begins)) return "this is not a GGUF file but " + std::string(other.is);
  if (text.size() > 8 && text[8] == '{')
    return "this is not a GGUF file but one of safetensors; give the folder that it is in";
  return "this is not a GGUF file; choose another one";
}

}  // namespace

uint64_t scalar_bytes(uint32_t type) {
  constexpr uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

std::unexpected<Error> GgufParser::bad(std::string message) const {
  return fail(ErrorCode::kInvalidModel, name_ + ": " + std::move(message) + "; download or convert the model again");
}

std::unexpected<Error> GgufParser::cut_short(std::string message) const {
  return fail(ErrorCode::kInvalidModel,
              name_ + ": " + std::move(message) + ": its download is incomplete; download it again");
}

Result<std::span<const std::byte>> GgufParser::take_bytes(uint64_t count, std::string_view what) {
  if (count > remaining())
    return cut_short("the file ends inside " + std::string(what) + " at byte " + std::to_string(at_));
  const auto bytes = file_.subspan(at_, count);
  at_ += count;
  return bytes;
}

template <class T>
Result<T> GgufParser::take_number(std::string_view what) {
  const auto bytes = TRY(take_bytes(sizeof(T), what));
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

Result<std::string_view> GgufParser::take_string(uint64_t max, std::string_view what) {
  const auto size = TRY(take_number<uint64_t>(what));
  if (size > max)
    return bad(std::string(what) + " has " + std::to_string(size) + " bytes, at most " + std::to_string(max) +
               " are read");
  const auto bytes = TRY(take_bytes(size, what));
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<void> GgufParser::run(uint64_t part) {
  TRY(read_header());
  TRY(read_values());
  TRY(read_own_keys(part));
  TRY(read_tensors());
  if (part == 0) out_.values_ = std::move(own_.values_);
  return {};
}

Result<void> GgufParser::read_header() {
  if (TRY(take_number<uint32_t>("its magic")) != kMagic)
    return fail(ErrorCode::kInvalidModel, name_ + ": " + not_gguf(file_));
  const auto version = TRY(take_number<uint32_t>("its version"));
  if ((version & 0xffff) == 0 && version != 0)
    return fail(ErrorCode::kUnsupported,
                name_ + ": big-endian GGUF files are not supported; convert the model as little-endian");
  if (version != 2 && version != 3)
    return fail(ErrorCode::kUnsupported,
                name_ + ": GGUF version " + std::to_string(version) + " is not supported, only 2 and 3; " +
                    (version < 2 ? "convert the model again" : "choose a file of version 3, or a newer Runahead"));
  num_tensors_ = TRY(take_number<uint64_t>("the number of tensors"));
  num_values_ = TRY(take_number<uint64_t>("the number of keys"));
  const std::string claims =
      "it claims " + std::to_string(num_tensors_) + " tensors and " + std::to_string(num_values_) + " keys, more than ";
  if (num_tensors_ > limits::kGgufTensorsMax || num_values_ > limits::kGgufKeysMax)
    return bad(claims + "a limit allows");
  if (num_values_ > remaining() / kValueBytesMin || num_tensors_ > remaining() / kTensorBytesMin)
    return cut_short(claims + "its " + std::to_string(file_.size()) + " bytes hold");
  return {};
}

Result<void> GgufParser::read_values() {
  for (uint64_t i = 0; i < num_values_; ++i) {
    const auto key = TRY(take_string(limits::kGgufNameBytesMax, "a key"));
    const Value value = TRY(read_value());
    if (!own_.values_.emplace(key, value).second) return bad("the key " + quoted(key) + " comes twice");
  }
  return {};
}

Result<GgufParser::Value> GgufParser::read_value() {
  const auto type = TRY(take_number<uint32_t>("the type of a value"));
  if (type == static_cast<uint32_t>(GgufValueType::kArray)) return read_array();
  const std::byte* data = file_.data() + at_;
  if (type == static_cast<uint32_t>(GgufValueType::kString)) {
    TRY(take_string(limits::kGgufStringBytesMax, "a string"));
  } else {
    if (scalar_bytes(type) == 0) return bad("a value has the unknown type " + std::to_string(type));
    TRY(take_bytes(scalar_bytes(type), "a value"));
  }
  return Value{.type = type, .is_array = false, .count = 1, .data = data};
}

Result<GgufParser::Value> GgufParser::read_array() {
  const auto type = TRY(take_number<uint32_t>("the type of an array"));
  const auto count = TRY(take_number<uint64_t>("the length of an array"));
  const bool is_string = type == static_cast<uint32_t>(GgufValueType::kString);
  if (!is_string && scalar_bytes(type) == 0)
    return bad("an array has elements of the unsupported type " + std::to_string(type));
  const uint64_t bytes_min = is_string ? sizeof(uint64_t) : scalar_bytes(type);
  const std::string claims = "an array claims " + std::to_string(count) + " elements, more than ";
  if (count > limits::kGgufArrayMax) return bad(claims + "a limit allows");
  if (count > remaining() / bytes_min) return cut_short(claims + "the file holds");
  const std::byte* data = file_.data() + at_;
  if (is_string) {
    for (uint64_t i = 0; i < count; ++i) TRY(take_string(limits::kGgufStringBytesMax, "a string of an array"));
  } else {
    TRY(take_bytes(count * bytes_min, "an array"));
  }
  return Value{.type = type, .is_array = true, .count = count, .data = data};
}

Result<void> GgufParser::read_own_keys(uint64_t part) {
  alignment_ = TRY(own_.u64_or("general.alignment", alignment_));
  if (alignment_ < 8 || alignment_ > limits::kGgufAlignmentMax || (alignment_ & (alignment_ - 1)) != 0)
    return bad("general.alignment is " + std::to_string(alignment_) + ", not a power of two from 8 to " +
               std::to_string(limits::kGgufAlignmentMax));
  split_count_ = TRY(own_.u64_or("split.count", 1));
  if (split_count_ == 0) split_count_ = 1;  // gguf-split writes 0 into a merged file
  if (split_count_ > limits::kGgufSplitsMax)
    return bad("split.count is " + std::to_string(split_count_) + ", over the limit");
  if (split_count_ == 1) return {};
  const auto number = TRY(own_.u64("split.no"));
  if (number != part)
    return fail(ErrorCode::kInvalidModel, name_ + ": this is part " + std::to_string(number + 1) + " of " +
                                              std::to_string(split_count_) + ", but part " + std::to_string(part + 1) +
                                              " was expected; name the first part, and keep the parts' file names");
  if (own_.has("split.tensors.count")) split_tensors_ = TRY(own_.u64("split.tensors.count"));
  return {};
}

Result<void> GgufParser::read_tensors() {
  const size_t first = out_.tensors_.size();
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    const TensorInfo info = TRY(read_tensor_info());
    if (!out_.tensor_index_.emplace(info.name, out_.tensors_.size()).second)
      return bad("the tensor " + quoted(info.name) + " comes twice");
    out_.tensors_.push_back(info);
  }
  const uint64_t data_begin = (at_ + alignment_ - 1) / alignment_ * alignment_;
  for (uint64_t i = 0; i < num_tensors_; ++i) TRY(place_tensor(out_.tensors_[first + i], offsets_[i], data_begin));
  return check_apart(std::span(out_.tensors_).subspan(first));
}

// No byte belongs to two tensors: no writer shares them, so one of the two offsets is wrong.
Result<void> GgufParser::check_apart(std::span<const TensorInfo> tensors) const {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& info : tensors) order.push_back(&info);
  std::ranges::sort(order, {}, [](const TensorInfo* info) { return info->bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data())
      return bad("the tensors " + quoted(order[i - 1]->name) + " and " + quoted(order[i]->name) + " overlap");
  return {};
}

Result<TensorInfo> GgufParser::read_tensor_info() {
  TensorInfo info;
  info.name = TRY(take_string(limits::kGgufNameBytesMax, "the name of a tensor"));
  const auto num_dims = TRY(take_number<uint32_t>("the dimensions of a tensor"));
  if (num_dims < 1 || num_dims > info.dims.size())
    return bad("the tensor " + quoted(info.name) + " has " + std::to_string(num_dims) + " dimensions, not 1 to 4");
  info.num_dims = static_cast<int32_t>(num_dims);
  uint64_t elements = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    const auto dim = TRY(take_number<uint64_t>("the dimensions of a tensor"));
    if (dim == 0 || __builtin_mul_overflow(elements, dim, &elements) || elements > INT64_MAX)
      return bad("the tensor " + quoted(info.name) + " has an impossible dimension " + std::to_string(dim));
    info.dims[i] = static_cast<int64_t>(dim);
  }
  const auto type = TRY(take_number<uint32_t>("the type of a tensor"));
  const auto format = quant_format(type);
  if (!format) return fail(format.error().code, name_ + ": " + quoted(info.name) + ": " + format.error().message);
  info.type = static_cast<QuantType>(type);
  offsets_.push_back(TRY(take_number<uint64_t>("the offset of a tensor")));
  return info;
}

Result<void> GgufParser::place_tensor(TensorInfo& info, uint64_t offset, uint64_t data_begin) {
  const QuantFormat& format = quant_format(info.type);
  const std::string name = "the tensor " + quoted(info.name);
  if (info.dims[0] % format.block_len != 0)
    return bad(name + " has rows of " + std::to_string(info.dims[0]) + " weights, no whole number of " +
               std::string(format.name) + " blocks");
  const auto blocks = static_cast<uint64_t>(info.elements() / format.block_len);
  uint64_t bytes = 0, end = 0;
  if (__builtin_mul_overflow(blocks, static_cast<uint64_t>(format.block_bytes), &bytes) || offset % alignment_ != 0 ||
      __builtin_add_overflow(data_begin, offset, &offset) || __builtin_add_overflow(offset, bytes, &end))
    return bad(name + " does not lie inside the file at an aligned place");
  if (end > file_.size())
    return cut_short(name + " does not lie inside the file, which has " + std::to_string(file_.size()) +
                     " bytes of at least " + std::to_string(end));
  info.bytes = file_.subspan(offset, bytes);
  return {};
}

}  // namespace runahead
