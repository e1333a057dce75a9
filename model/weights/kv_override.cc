#include "model/weights/kv_override.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <system_error>

#include "base/limits.h"
#include "model/weights/gguf_parser.h"

namespace runahead {
namespace {

constexpr std::string_view kValueTypes[] = {"int", "float", "bool", "str"};

std::unexpected<Error> wrong(std::string_view text, const std::string& what) {
  constexpr size_t kShownMax = 80;
  const std::string shown(text.substr(0, kShownMax));
  return fail(ErrorCode::kInvalidArgument, "--override-kv " + shown + (text.size() > kShownMax ? "...: " : ": ") + what,
              "override-kv");
}

// Where `KEY=TYPE:` at the start of `text` ends; 0 if it does not start so.
size_t head_bytes(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || text.substr(0, equals).find(',') != std::string_view::npos)
    return 0;
  for (const std::string_view type : kValueTypes) {
    const std::string_view rest = text.substr(equals + 1);
    if (rest.starts_with(type) && rest.substr(type.size()).starts_with(':')) return equals + 1 + type.size() + 1;
  }
  return 0;
}

// A comma parts two overrides only where another one begins: a string may hold commas.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t comma = text.find(','); comma != std::string_view::npos; comma = text.find(',', comma + 1)) {
    if (head_bytes(text.substr(comma + 1)) == 0) continue;
    parts.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

template <class T>
void store(KvOverride& out, GgufValueType type, T value) {
  out.type = static_cast<uint32_t>(type);
  out.value.resize(sizeof(T));
  std::memcpy(out.value.data(), &value, sizeof(T));
}

void store_text(KvOverride& out, std::string_view text) {
  store(out, GgufValueType::kString, uint64_t{text.size()});
  const auto bytes = std::as_bytes(std::span(text));
  out.value.insert(out.value.end(), bytes.begin(), bytes.end());
}

// What says how the rest of the file is to be read is settled before any override counts.
bool is_layout(std::string_view key) { return key == "general.alignment" || key.starts_with("split."); }

Result<KvOverride> parse_one(std::string_view text) {
  const size_t head = head_bytes(text);
  if (head == 0) return wrong(text, "write KEY=TYPE:VALUE, where TYPE is int, float, bool or str");
  const size_t equals = text.find('=');
  const std::string_view type = text.substr(equals + 1, head - equals - 2), value = text.substr(head);
  KvOverride out{.key = std::string(text.substr(0, equals))};
  if (text.size() > limits::kKvOverrideBytesMax)
    return wrong(text, "it is longer than " + std::to_string(limits::kKvOverrideBytesMax) + " bytes");
  if (is_layout(out.key)) return wrong(text, "this key says how the file is laid out and cannot be changed");
  if (type == "str") {
    store_text(out, value);
  } else if (type == "bool") {
    if (value != "true" && value != "false") return wrong(text, "a bool is true or false");
    store(out, GgufValueType::kBool, static_cast<uint8_t>(value == "true"));
  } else if (type == "int") {
    const auto whole = number<int64_t>(value);
    if (!whole) return wrong(text, "'" + std::string(value.substr(0, 40)) + "' is no whole number of 64 bits");
    store(out, GgufValueType::kI64, *whole);
  } else {
    const auto real = number<float>(value);
    if (!real || !std::isfinite(*real))
      return wrong(text, "'" + std::string(value.substr(0, 40)) + "' is no finite number");
    store(out, GgufValueType::kF32, *real);
  }
  return out;
}

}  // namespace

Result<std::vector<KvOverride>> parse_kv_overrides(const std::vector<std::string>& texts) {
  std::map<std::string, KvOverride> by_key;
  for (const std::string& text : texts) {
    for (const std::string_view part : split(text)) {
      KvOverride one = TRY(parse_one(part));
      by_key.insert_or_assign(one.key, one);
    }
  }
  if (by_key.size() > limits::kKvOverridesMax)
    return fail(ErrorCode::kTooLarge,
                "--override-kv sets " + std::to_string(by_key.size()) + " keys; at most " +
                    std::to_string(limits::kKvOverridesMax) + " are taken",
                "override-kv");
  std::vector<KvOverride> out;
  for (auto& [key, one] : by_key) out.push_back(std::move(one));
  return out;
}

}  // namespace runahead
