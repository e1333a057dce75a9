// ParsedJson: JSON from outside, parsed within bounds that are checked before anything is built: a parsed value is as deep as its
// text, and can be 30 times as large. An object that has a key twice is refused: parsers differ in which of the two they take.
//   threads  plain data.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace runahead {

// A parsed text. It is emptied from the leaves up before it dies: nlohmann's destructor (3.11; nlohmann/json issue 5135) asks
// for memory for every element of a list, and where there is none that ends the process.
class ParsedJson {
 public:
  ParsedJson() = default;
  explicit ParsedJson(nlohmann::json value) : value_(std::move(value)) {}
  ParsedJson(ParsedJson&&) = default;
  ParsedJson& operator=(ParsedJson&&) = default;
  ~ParsedJson();
  operator const nlohmann::json&() const { return value_; }
  const nlohmann::json* operator->() const { return &value_; }
  nlohmann::json& value() { return value_; }
  const nlohmann::json& value() const { return value_; }

 private:
  nlohmann::json value_;
};

struct JsonBounds {
  int depth_max = 0;
  size_t memory_max = 0;  // bytes that the values may take, about
};

// kInvalidArgument with the place: what is no JSON, nests too deep or has a key twice; kTooLarge for more values than memory_max.
Result<ParsedJson> parse_json(std::string_view text, const JsonBounds& bounds);

// The same with objects in the order of the text, which is what a model is shown. Only of a text that parse_json has taken.
nlohmann::ordered_json parse_in_order(std::string_view text);

}  // namespace runahead
