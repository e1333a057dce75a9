#include "base/parsed_json.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/check.h"

namespace runahead {
namespace {

using nlohmann::json;

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

// As deep as the text was allowed to be.
template <class Json>
void clear_from_leaves(Json& value) noexcept {
  if (!value.is_structured()) return;
  for (Json& element : value) clear_from_leaves(element);
  value.clear();
}

// Builds what Json::parse builds, in linear time: with a callback, nlohmann 3.11 looks through all elements of a list at the end
// of each object in it, so that 400,000 objects took half a minute; and an ordered_json's own parse looks for each key among
// those before it, so that 200,000 took 43 s. A key that an object has twice is noted: nlohmann keeps the last of them, other
// parsers the first, and nobody could say which one was meant. In an ordered_json it is not looked for.
template <class Json>
class JsonBuilder final : public nlohmann::json_sax<Json> {
 public:
  ~JsonBuilder() override { clear_from_leaves(root); }
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(typename Json::number_integer_t value) override { return put(value); }
  bool number_unsigned(typename Json::number_unsigned_t value) override { return put(value); }
  bool number_float(typename Json::number_float_t value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(typename Json::binary_t&) override { return false; }  // is not in JSON's text
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    auto& members = open_.back()->template get_ref<typename Json::object_t&>();
    if constexpr (std::is_same_v<Json, nlohmann::ordered_json>) {
      member_ = &members.emplace_back(name, nullptr).second;  // the vector's own, which looks for nothing
    } else {
      const auto [it, is_new] = members.try_emplace(name);
      if (!is_new) duplicate = name;
      member_ = &it->second;
    }
    return !duplicate;
  }
  bool parse_error(std::size_t, const std::string&, const typename Json::exception& what) override {
    error = plain(what.what());
    return false;
  }

  Json root;
  std::string error;  // of the text
  std::optional<std::string> duplicate;  // the parse ended there

 private:
  Json* place(Json value) {
    if (open_.empty()) return &(root = std::move(value));
    if (!open_.back()->is_array()) return &(*member_ = std::move(value));
    open_.back()->push_back(std::move(value));
    return &open_.back()->back();
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json container) {
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  // The lists and objects around the present place; neither grows while one in it is open.
  std::vector<Json*> open_;
  Json* member_ = nullptr;  // of the innermost object, whose value comes next
};

}  // namespace

ParsedJson::~ParsedJson() { clear_from_leaves(value_); }

Result<ParsedJson> parse_json(std::string_view text, const JsonBounds& bounds) {
  constexpr size_t kShownKeyBytesMax = 100;
  const JsonSize size = measure(text);
  if (size.depth > bounds.depth_max)
    return fail(ErrorCode::kInvalidArgument,
                "the JSON nests deeper than " + std::to_string(bounds.depth_max) + " levels");
  if (size.memory > bounds.memory_max)
    return fail(ErrorCode::kTooLarge, "the JSON has too many values: at most " +
                                          std::to_string(bounds.memory_max / 48) +
                                          " numbers, or a third of that of "
                                          "strings, lists and objects");
  JsonBuilder<json> builder;
  if (json::sax_parse(text, &builder)) return ParsedJson(std::move(builder.root));
  if (builder.duplicate)
    return fail(ErrorCode::kInvalidArgument,
                "the JSON has the key '" + builder.duplicate->substr(0, kShownKeyBytesMax) + "' twice");
  return fail(ErrorCode::kInvalidArgument, "this is not valid JSON: " + builder.error);
}

nlohmann::ordered_json parse_in_order(std::string_view text) {
  JsonBuilder<nlohmann::ordered_json> builder;
  RUNAHEAD_CHECK(nlohmann::ordered_json::sax_parse(text, &builder), "parse_json has taken this text");
  return std::move(builder.root);
}

}  // namespace runahead
