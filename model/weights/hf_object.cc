#include "model/weights/hf_object.h"

#include <cmath>

#include "base/json_text.h"
#include "base/limits.h"
#include "model/weights/gguf.h"

namespace runahead {

using nlohmann::json;

Result<ParsedJson> parse_hf_json(std::span<const std::byte> file, const std::string& name) {
  const auto bad = [&](const std::string& what) {
    return fail(ErrorCode::kInvalidModel, name + ": " + what + "; download it again");
  };
  if (file.size() > limits::kHfFileBytesMax)
    return bad("the file has " + std::to_string(file.size()) + " bytes, at most " +
               std::to_string(limits::kHfFileBytesMax) + " are read");
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with("version https://git-lfs")) return bad("it is a pointer of Git LFS, not the file itself");
  Result<ParsedJson> parsed = parse_json(text, {limits::kHfJsonDepthMax, limits::kHfJsonMemoryMax});
  if (!parsed) return bad(parsed.error().message);
  if (!(*parsed)->is_object()) return bad("it holds no JSON object");
  return parsed;
}

const json* HfObject::find(std::string_view name) const {
  asked_.emplace(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string HfObject::named(std::string_view name) const {
  return where_ + ": " + runahead::quoted(path_ + std::string(name));
}

std::unexpected<Error> HfObject::bad(std::string_view name, const std::string& is) const {
  return fail(ErrorCode::kInvalidModel, named(name) + " is " + is + "; download the model again", std::string(name));
}

std::unexpected<Error> HfObject::unsupported(std::string_view name) const {
  return fail(ErrorCode::kUnsupported,
              named(name) + " is " + shown(name) + ", which this version does not compute with; choose another model",
              std::string(name));
}

std::string HfObject::shown(std::string_view name) const {
  const json* value = find(name);
  return value == nullptr ? "missing" : printable_line(to_text(*value), 80);
}

Result<double> HfObject::number(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return bad(name, "missing");
  if (!value->is_number() || !std::isfinite(value->get<double>())) return bad(name, shown(name) + ", not a number");
  return value->get<double>();
}

Result<double> HfObject::number_or(std::string_view name, double fallback) const {
  return has(name) ? number(name) : Result<double>(fallback);
}

Result<uint64_t> HfObject::size(std::string_view name, uint64_t max) const {
  const double value = TRY(number(name));
  if (!(value >= 1 && value <= static_cast<double>(max)) || value != std::floor(value))
    return bad(name, shown(name) + ", not a whole number from 1 to " + std::to_string(max));
  return static_cast<uint64_t>(value);
}

Result<uint64_t> HfObject::size_or(std::string_view name, uint64_t max, uint64_t fallback) const {
  return has(name) ? size(name, max) : Result<uint64_t>(fallback);
}

Result<bool> HfObject::flag_or(std::string_view name, bool fallback) const {
  const json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return bad(name, shown(name) + ", not true or false");
  return value->get<bool>();
}

Result<std::string> HfObject::text_or(std::string_view name, const std::string& fallback) const {
  const json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_string()) return bad(name, shown(name) + ", not a text");
  return value->get<std::string>();
}

Result<std::vector<double>> HfObject::numbers(std::string_view name) const {
  const json* value = find(name);
  std::vector<double> out;
  if (value == nullptr || !value->is_array()) return bad(name, shown(name) + ", not a list of numbers");
  for (const json& one : *value) {
    if (!one.is_number()) return bad(name, shown(name) + ", not a list of numbers");
    out.push_back(one.get<double>());
  }
  return out;
}

Result<std::vector<std::string>> HfObject::texts(std::string_view name) const {
  const json* value = find(name);
  std::vector<std::string> out;
  if (value == nullptr || !value->is_array()) return bad(name, shown(name) + ", not a list of texts");
  for (const json& one : *value) {
    if (!one.is_string()) return bad(name, shown(name) + ", not a list of texts");
    out.push_back(one.get<std::string>());
  }
  return out;
}

std::vector<std::string> HfObject::unread() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items())
    if (!value.is_null() && !asked_.contains(name)) names.push_back(name);
  return names;
}

}  // namespace runahead
