#include "services/gateway/json_reader.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kShownKeyBytesMax = 100;  // of a client's key, in a message

struct JsonSize {
  int depth = 0;
  size_t memory = 0;  // about what the parsed value takes at its peak, in bytes
};

// Before parsing, because a parsed value is as deep as its text, and can be 30 times as large.
JsonSize measure(std::string_view text) {
  constexpr size_t kValue = 48;       // 16 in a vector, which holds three times that while it grows
  constexpr size_t kString = 96;      // with its allocation, beside its bytes; or a map's node
  constexpr size_t kContainer = 128;  // a vector or a map, and its allocation
  JsonSize size;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      ++size.memory;
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      size.memory += kString;
      in_string = true;
    } else if (c == '{' || c == '[') {
      size.memory += kContainer;
      size.depth = std::max(size.depth, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',') {
      size.memory += kValue;
    }
  }
  return size;
}

// nlohmann's text without its "[json.exception.parse_error.101] " in front.
std::string plain(std::string_view what) {
  const size_t bracket = what.find("] ");
  std::string text(bracket == std::string_view::npos ? what : what.substr(bracket + 2));
  if (text.size() > 300) text.resize(300);  // it can quote the input
  return text;
}

// Builds what json::parse builds, in linear time: with a callback, nlohmann 3.11 looks through all elements of a list at the
// end of each object in it, so that 400,000 objects took half a minute. It also notes a key that an object has twice:
// nlohmann keeps the last of them, other parsers the first, and nobody could say which one was meant.
class JsonBuilder final : public nlohmann::json_sax<json> {
 public:
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // is not in JSON's text
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    const auto [it, is_new] = open_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!is_new) duplicate = name;
    member_ = &it->second;
    return is_new;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& what) override {
    error = plain(what.what());
    return false;
  }

  ParsedJson root;
  std::string error;  // of the text
  std::optional<std::string> duplicate;  // the parse ended there

 private:
  json* place(json value) {
    if (open_.empty()) return &(root.value() = std::move(value));
    if (!open_.back()->is_array()) return &(*member_ = std::move(value));
    open_.back()->push_back(std::move(value));
    return &open_.back()->back();
  }
  bool put(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json container) {
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::vector<json*>
      open_;  // the lists and objects around the present place; a list does not grow while one in it is open
  json* member_ = nullptr;  // of the innermost object, whose value comes next
};

// As deep as limits::kJsonDepthMax.
void clear_from_leaves(json& value) noexcept {
  if (!value.is_structured()) return;
  for (json& element : value) clear_from_leaves(element);
  value.clear();
}

bool beyond_int64(const json& value) {
  return value.is_number() && std::abs(value.get<double>()) >= 9223372036854775807.0;
}

std::string range_text(double min, double max) {
  char text[80];
  std::snprintf(text, sizeof text, "from %.15g to %.15g", min, max);
  return text;
}

}  // namespace

ParsedJson::~ParsedJson() { clear_from_leaves(value_); }

Result<ParsedJson> parse_json(std::string_view text) {
  const JsonSize size = measure(text);
  if (size.depth > limits::kJsonDepthMax)
    return fail(ErrorCode::kInvalidArgument, "the JSON nests deeper than 32 levels");
  if (size.memory > limits::kJsonMemoryMax)
    return fail(ErrorCode::kTooLarge,
                "the JSON has too many values: over 3 million numbers, or over 1 million strings, "
                "lists and objects; send less at once");
  JsonBuilder builder;
  if (json::sax_parse(text, &builder)) return std::move(builder.root);
  if (builder.duplicate)
    return fail(ErrorCode::kInvalidArgument,
                "the JSON has the key '" + builder.duplicate->substr(0, kShownKeyBytesMax) + "' twice; send it once");
  return fail(ErrorCode::kInvalidArgument, "this is not valid JSON: " + builder.error);
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
