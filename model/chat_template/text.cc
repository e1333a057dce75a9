#include "model/chat_template/text.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "model/chat_template/characters.h"

namespace runahead::jinja {

char32_t next_char(std::string_view text, size_t& pos) {
  const auto byte = static_cast<uint8_t>(text[pos++]);
  if (byte < 0xC0) return byte;
  const int more = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
  char32_t c = byte & (0x3F >> more);
  for (int k = 0; k < more && pos < text.size(); ++k) c = (c << 6) | (static_cast<uint8_t>(text[pos++]) & 0x3F);
  return c;
}

void append_char(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (const char byte : text) count += (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  return count;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t pos = 0;
  for (; pos < text.size(); ++pos) {
    if ((static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80) continue;
    if (index-- == 0) break;
  }
  return pos;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, bool left, bool right) {
  const auto strips = [&](char32_t c) {
    if (!chars) return is_space(c);
    for (size_t pos = 0; pos < chars->size();) {
      if (next_char(*chars, pos) == c) return true;
    }
    return false;
  };
  while (left && !text.empty()) {
    size_t pos = 0;
    if (!strips(next_char(text, pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!strips(next_char(text, pos))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];  // 17 digits, sign, point and exponent are 24 at most; fixed notation up to 1e16 is shorter too
  const auto scientific = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  int exponent = 0;
  const char* digits = text.data() + text.find('e') + 1;
  std::from_chars(digits + (*digits == '+' ? 1 : 0), text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

void append_quoted_repr(std::string& out, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      append_char(out, c);
    } else {
      char escape[16];
      std::snprintf(escape, sizeof(escape),
                    c < 0x100     ? "\\x%02x"
                    : c < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                    static_cast<unsigned>(c));
      out += escape;
    }
  }
  out += quote;
}

std::optional<double> parse_float(const std::string& text) {
  std::string trimmed(strip(text, {}, true, true));
  std::erase(trimmed, '_');
  const char* first = trimmed.data() + (trimmed.starts_with('+') ? 1 : 0);
  double value = 0;
  const auto parsed = std::from_chars(first, trimmed.data() + trimmed.size(), value);
  if (trimmed.empty() || parsed.ec != std::errc() || parsed.ptr != trimmed.data() + trimmed.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_int(const std::string& text, int base) {
  std::string trimmed(strip(text, {}, true, true));
  std::erase(trimmed, '_');
  const bool negative = trimmed.starts_with('-');
  std::string_view digits = std::string_view(trimmed).substr(negative || trimmed.starts_with('+') ? 1 : 0);
  const std::string_view prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : " ";
  if (digits.starts_with(prefix)) digits.remove_prefix(2);
  uint64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return std::nullopt;
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

}  // namespace runahead::jinja
