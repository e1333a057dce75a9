#include "model/chat_template/text.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace runahead::jinja {

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const int length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    if (byte > 0xF4 || (byte >= 0x80 && byte < 0xC2) || i + length > text.size()) return false;
    char32_t c = length == 1 ? byte : byte & (0x7F >> length);
    for (int k = 1; k < length; ++k) {
      const auto next = static_cast<uint8_t>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      c = (c << 6) | (next & 0x3F);
    }
    if ((length == 3 && c < 0x800) || (length == 4 && c < 0x10000)) return false;
    if ((c >= 0xD800 && c < 0xE000) || c > 0x10FFFF) return false;
    i += length;
  }
  return true;
}

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

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

namespace {

// Blocks where an upper-case letter is followed by its lower-case one; `parity` is that of the upper-case letter.
bool in_pairs(char32_t c, char32_t& parity) {
  const auto in = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  parity = 0;
  if (in(0x100, 0x137) && c != 0x130 && c != 0x131) return true;
  if (in(0x14A, 0x177) || in(0x460, 0x481) || in(0x48A, 0x4BF) || in(0x4D0, 0x52F)) return true;
  if (in(0x1E00, 0x1E95) || in(0x1EA0, 0x1EFF)) return true;
  parity = 1;
  return in(0x139, 0x148) || in(0x179, 0x17E);
}

char32_t upper_of(char32_t c) {
  const auto in = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  if (in('a', 'z')) return c - 32;
  if (c < 0x80) return c;
  if (c == 0xB5) return 0x39C;
  if (in(0xE0, 0xFE) && c != 0xF7) return c - 32;
  if (c == 0xFF) return 0x178;
  if (c == 0x131) return 'I';
  if (c == 0x17F) return 'S';
  char32_t parity;
  if (in_pairs(c, parity)) return c % 2 == parity ? c : c - 1;
  if (c == 0x3AC) return 0x386;
  if (in(0x3AD, 0x3AF)) return c - 37;
  if (c == 0x3C2) return 0x3A3;
  if (in(0x3B1, 0x3CB)) return c - 32;
  if (c == 0x3CC) return 0x38C;
  if (in(0x3CD, 0x3CE)) return c - 63;
  if (in(0x430, 0x44F)) return c - 32;
  if (in(0x450, 0x45F)) return c - 80;
  if (in(0x561, 0x586)) return c - 48;
  return c;
}

char32_t lower_of(char32_t c) {
  const auto in = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  if (in('A', 'Z')) return c + 32;
  if (c < 0x80) return c;
  if (in(0xC0, 0xDE) && c != 0xD7) return c + 32;
  if (c == 0x178) return 0xFF;
  char32_t parity;
  if (in_pairs(c, parity)) return c % 2 == parity ? c + 1 : c;
  if (c == 0x386) return 0x3AC;
  if (in(0x388, 0x38A)) return c + 37;
  if (c == 0x38C) return 0x3CC;
  if (in(0x38E, 0x38F)) return c + 63;
  if (in(0x391, 0x3AB) && c != 0x3A2) return c + 32;
  if (in(0x410, 0x42F)) return c + 32;
  if (in(0x400, 0x40F)) return c + 80;
  if (in(0x531, 0x556)) return c + 48;
  return c;
}

void append_upper(std::string& out, char32_t c, bool first_only = false) {
  if (c == 0xDF) {
    out += first_only ? "Ss" : "SS";  // the one letter here whose upper case is two
  } else {
    append_char(out, upper_of(c));
  }
}

bool is_printable(char32_t c) {
  if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return false;
  if (c >= 0x80 && is_space(c)) return false;
  if ((c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F)) return false;
  return !(c >= 0xD800 && c <= 0xF8FF) && c != 0xFEFF && c < 0xE0000;
}

}  // namespace

bool is_alpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  if (c < 0x100) return c >= 0xC0 ? c != 0xD7 && c != 0xF7 : c == 0xAA || c == 0xB5 || c == 0xBA;
  const bool symbol = (c >= 0x2000 && c < 0x2C00) || (c >= 0x3000 && c < 0x3005) || c >= 0x1F000;
  return !symbol && is_printable(c);
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(out, next_char(text, pos));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_char(out, lower_of(next_char(text, pos)));
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  if (text.empty()) return out;
  size_t pos = 0;
  append_upper(out, next_char(text, pos), true);
  return out + to_lower(text.substr(pos));
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (in_word) {
      append_char(out, lower_of(c));
    } else {
      append_upper(out, c, true);
    }
    in_word = upper_of(c) != c || lower_of(c) != c || c == 0xDF;
  }
  return out;
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

}  // namespace runahead::jinja
