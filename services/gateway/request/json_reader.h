// JsonReader: takes a JSON object apart by hand, field by field, with the type and the bounds of each. What is not
// taken is unknown, and an error. The first error is kept; the values after it are defaults, so a caller reads on and
// asks once. Error.param is the JSON path of the field: "messages[0].content".
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"

namespace runahead {

inline constexpr size_t kNameBytesMax = 1024;  // of a model, a role, a type and the like

// Within limits::kJsonDepthMax and limits::kJsonMemoryMax (base/parsed_json.h).
Result<ParsedJson> parse_json(std::string_view text);
Result<ParsedJson> parse_json_object(std::string_view text);

// An integer, or a number that JavaScript or Lua wrote as 16.0; nothing if it is none or does not fit.
std::optional<int64_t> whole_number(const nlohmann::json& value);
// null, "", [] and {}: what clients send for fields that they do not use.
bool says_nothing(const nlohmann::json& value);

class JsonReader {
 public:
  // `object` must be a JSON object and outlive the reader. `path` names it in errors, empty for the body itself.
  JsonReader(const nlohmann::json& object, std::string path, std::optional<Error>& first_error);

  // A field that is absent or null gives nothing. Each field may be taken once.
  const nlohmann::json* take(std::string_view name);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);
  std::optional<bool> boolean(std::string_view name);
  std::optional<std::string> string(std::string_view name, size_t bytes_max);
  std::optional<std::vector<int64_t>> integers(std::string_view name, size_t count_max, int64_t min, int64_t max);
  const nlohmann::json* array(std::string_view name, size_t count_max);
  const nlohmann::json* object(std::string_view name);

  void ignore(std::span<const std::string_view> names);  // known to OpenAI, without effect here
  void unsupported(std::span<const std::string_view> names);  // known, but not built: an error unless it says nothing
  // What was not taken is an error, unless it is null: not given.
  void finish();

  void error(std::string_view field, std::string message, ErrorCode code = ErrorCode::kInvalidArgument);
  // Keeps an error that another reader has found, if it is the first.
  void adopt(Error error);
  std::string path_of(std::string_view field) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
  std::optional<Error>& first_error_;
  std::set<std::string, std::less<>> taken_;
};

}  // namespace runahead
