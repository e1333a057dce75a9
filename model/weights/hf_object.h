// HfObject: one object of a JSON file of Hugging Face's, taken apart with the type and the bounds of each member. What was never
// asked for is known at the end. Private to model/weights/hf_*.
//   memory  views the parsed file, which must outlive it.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"

namespace runahead {

// A whole file: kInvalidModel with its name if it is no JSON object, or larger or deeper than limits::kHf... allow.
Result<ParsedJson> parse_hf_json(std::span<const std::byte> file, const std::string& name);

class HfObject {
 public:
  // where: the file's name, for messages. An object inside of it says so in `path`: "rope_scaling.".
  HfObject(const nlohmann::json& object, std::string where, std::string path = "")
      : object_(object), where_(std::move(where)), path_(std::move(path)) {}

  // Null is as good as absent.
  const nlohmann::json* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  bool says_null(std::string_view name) const { return !has(name) && object_.contains(name); }
  // kInvalidModel: missing, no whole number, or not from 1 to `max`.
  Result<uint64_t> size(std::string_view name, uint64_t max) const;
  Result<uint64_t> size_or(std::string_view name, uint64_t max, uint64_t fallback) const;
  Result<double> number(std::string_view name) const;  // finite
  Result<double> number_or(std::string_view name, double fallback) const;
  Result<bool> flag_or(std::string_view name, bool fallback) const;
  Result<std::string> text_or(std::string_view name, const std::string& fallback) const;
  Result<std::vector<double>> numbers(std::string_view name) const;
  Result<std::vector<std::string>> texts(std::string_view name) const;

  // Members that are not null and were never asked for, in the file's order of names.
  std::vector<std::string> unread() const;
  // As text of the JSON, for a message.
  std::string shown(std::string_view name) const;
  std::string named(std::string_view name) const;  // "config.json: 'rope_scaling.type'"
  std::unexpected<Error> bad(std::string_view name, const std::string& is) const;
  std::unexpected<Error> unsupported(std::string_view name) const;  // with its value
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& object_;
  std::string where_, path_;
  mutable std::set<std::string, std::less<>> asked_;
};

}  // namespace runahead
