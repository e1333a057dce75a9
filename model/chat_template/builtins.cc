#include "model/chat_template/builtins.h"

#include <algorithm>

#include "model/chat_template/characters.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

Result<std::string> string_argument(const Args& args, size_t index, std::string_view name,
                                    std::optional<std::string> fallback) {
  const Value* value = args.find(index, name);
  if (!value && fallback) return *std::move(fallback);
  if (value && value->is_string()) return value->as_string();
  return type_error("argument '" + std::string(name) + "' must be a string");
}

Result<int64_t> int_argument(const Args& args, size_t index, std::string_view name, std::optional<int64_t> fallback) {
  const Value* value = args.find(index, name);
  if (!value && fallback) return *fallback;
  if (value && value->is_integral()) return value->as_int();
  return type_error("argument '" + std::string(name) + "' must be an integer");
}

bool bool_argument(const Args& args, size_t index, std::string_view name, bool fallback) {
  const Value* value = args.find(index, name);
  return value ? value->truthy() : fallback;
}

size_t find_text(std::string_view text, std::string_view part, size_t from, Budget& budget) {
  if (from > text.size()) return std::string_view::npos;
  // The worst case of a search is the product of both lengths; short parts, the usual ones, cost one scan. What is
  // scanned is charged before it is, a window at a time, so that a search that ends early stays cheap.
  const uint64_t factor = 1 + part.size() / 64;
  constexpr size_t kWindow = 4096;
  while (true) {
    if (!budget.spend_bytes(std::min(text.size() - from, kWindow) * factor)) return std::string_view::npos;
    const std::string_view window = text.substr(from, kWindow + part.size());
    const size_t found = window.find(part);
    if (found != std::string_view::npos) return from + found;
    if (window.size() < kWindow + part.size()) return std::string_view::npos;
    from += kWindow;
  }
}

std::string replace_text(std::string_view text, std::string_view from, std::string_view to, int64_t count,
                         Budget& budget) {
  std::string out;
  size_t pos = 0;
  while (count != 0) {
    size_t next = pos;
    if (from.empty()) {  // before every character and at the end
      if (pos > text.size()) break;
    } else {
      next = find_text(text, from, pos, budget);
      if (next == std::string_view::npos) break;
    }
    if (!budget.spend_bytes(next - pos + to.size())) return out;
    out.append(text.substr(pos, next - pos)).append(to);
    pos = next + from.size();
    if (from.empty()) {
      if (pos == text.size()) return out;
      const size_t start = pos;
      next_char(text, pos);
      out.append(text.substr(start, pos - start));
    }
    --count;
  }
  budget.spend_bytes(text.size() - pos);
  return out.append(text.substr(pos));
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t line_end = pos;
    const char32_t c = next_char(text, pos);
    const bool ends = (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.push_back(text.substr(start, (keep_ends ? pos : line_end) - start));
    start = pos;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace runahead::jinja
