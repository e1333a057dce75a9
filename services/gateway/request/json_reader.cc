#include "services/gateway/request/json_reader.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kShownKeyBytesMax = 100;  // of a client's key, in a message

bool beyond_int64(const json& value) {
  return value.is_number() && std::abs(value.get<double>()) >= 9223372036854775807.0;
}

std::string range_text(double min, double max) {
  char text[80];
  std::snprintf(text, sizeof text, "from %.15g to %.15g", min, max);
  return text;
}

}  // namespace

Result<ParsedJson> parse_json(std::string_view text) {
  Result<ParsedJson> parsed = parse_json(text, {limits::kJsonDepthMax, limits::kJsonMemoryMax});
  if (!parsed && parsed.error().code == ErrorCode::kTooLarge) parsed.error().message += "; send less at once";
  return parsed;
}

std::optional<int64_t> whole_number(const json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return {};
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return {};
  constexpr double kExactMax = 9007199254740992;  // 2^53: beyond it a double has lost the last digits
  const double number = value.get<double>();
  if (!(std::abs(number) <= kExactMax) || number != std::trunc(number)) return {};
  return static_cast<int64_t>(number);
}

bool says_nothing(const json& value) {
  return value.is_string() ? value.get_ref<const std::string&>().empty()
                           : value.is_null() || (value.is_structured() && value.empty());
}

Result<ParsedJson> parse_json_object(std::string_view text) {
  ParsedJson parsed = TRY(parse_json(text));
  if (!parsed->is_object()) return fail(ErrorCode::kInvalidArgument, "the JSON must be an object");
  return parsed;
}

JsonReader::JsonReader(const json& object, std::string path, std::optional<Error>& first_error)
    : object_(object), path_(std::move(path)), first_error_(first_error) {}

std::string JsonReader::path_of(std::string_view field) const {
  return path_.empty() ? std::string(field) : path_ + "." + std::string(field);
}

void JsonReader::error(std::string_view field, std::string message, ErrorCode code) {
  if (!first_error_) first_error_ = Error{code, "'" + path_of(field) + "' " + std::move(message), path_of(field)};
}

void JsonReader::adopt(Error error) {
  if (!first_error_) first_error_ = std::move(error);
}

const json* JsonReader::take(std::string_view name) {
  taken_.emplace(name);
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> JsonReader::number(std::string_view name, double min, double max) {
  const json* value = take(name);
  if (value == nullptr) return {};
  if (!value->is_number()) {
    error(name, "must be a number");
    return {};
  }
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    error(name, "must be " + range_text(min, max));
    return {};
  }
  return number;
}

std::optional<int64_t> JsonReader::integer(std::string_view name, int64_t min, int64_t max) {
  const json* value = take(name);
  if (value == nullptr) return {};
  const auto whole = whole_number(*value);
  if (!whole && !beyond_int64(*value)) {
    error(name, "must be an integer");
    return {};
  }
  if (!whole || *whole < min || *whole > max) {
    error(name, "must be from " + std::to_string(min) + " to " + std::to_string(max));
    return {};
  }
  return whole;
}

std::optional<bool> JsonReader::boolean(std::string_view name) {
  const json* value = take(name);
  if (value == nullptr) return {};
  if (!value->is_boolean()) {
    error(name, "must be true or false");
    return {};
  }
  return value->get<bool>();
}

std::optional<std::string> JsonReader::string(std::string_view name, size_t bytes_max) {
  const json* value = take(name);
  if (value == nullptr) return {};
  if (!value->is_string()) {
    error(name, "must be a string");
    return {};
  }
  if (value->get_ref<const std::string&>().size() > bytes_max) {
    error(name, "must be at most " + std::to_string(bytes_max) + " bytes long");
    return {};
  }
  return value->get<std::string>();
}

const json* JsonReader::array(std::string_view name, size_t count_max) {
  const json* value = take(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array() || value->size() > count_max) {
    error(name, "must be a list of at most " + std::to_string(count_max) + " entries");
    return nullptr;
  }
  return value;
}

const json* JsonReader::object(std::string_view name) {
  const json* value = take(name);
  if (value != nullptr && !value->is_object()) {
    error(name, "must be an object");
    return nullptr;
  }
  return value;
}

std::optional<std::vector<int64_t>> JsonReader::integers(std::string_view name, size_t count_max, int64_t min,
                                                         int64_t max) {
  const json* list = array(name, count_max);
  if (list == nullptr) return {};
  std::vector<int64_t> values;
  values.reserve(list->size());
  for (const json& entry : *list) {
    const auto whole = whole_number(entry);
    if (!whole || *whole < min || *whole > max) {
      error(std::string(name) + "[" + std::to_string(values.size()) + "]",
            "must be an integer from " + std::to_string(min) + " to " + std::to_string(max));
      return {};
    }
    values.push_back(*whole);
  }
  return values;
}

void JsonReader::ignore(std::span<const std::string_view> names) {
  for (const std::string_view name : names) take(name);
}

void JsonReader::unsupported(std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    const json* value = take(name);
    if (value != nullptr && !says_nothing(*value))
      error(name, "is not supported; leave it out", ErrorCode::kUnsupported);
  }
}

void JsonReader::finish() {
  for (const auto& [name, value] : object_.items()) {
    if (!taken_.contains(name) && !value.is_null()) {
      error(name.substr(0, kShownKeyBytesMax), "is not a known parameter; leave it out", ErrorCode::kUnsupported);
      return;
    }
  }
}

}  // namespace runahead
