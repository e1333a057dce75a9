// Text as Python's str sees it: UTF-8 underneath, code points outside. Pure functions on valid UTF-8.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace runahead::jinja {

// The code point at `pos`, which moves behind it.
char32_t next_char(std::string_view text, size_t& pos);
void append_char(std::string& out, char32_t c);
size_t count_chars(std::string_view text);
// Byte offset of character `index`, or the length if there are fewer.
size_t byte_offset(std::string_view text, size_t index);

// str.strip and friends; without `chars` it strips white space.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, bool left, bool right);

// A number as int() and float() read one, white space around it and _ inside; nothing if it is none or does not fit.
std::optional<double> parse_float(const std::string& text);
std::optional<int64_t> parse_int(const std::string& text, int base);

std::string float_repr(double value);                        // Python's repr: shortest digits that read back
void append_quoted_repr(std::string& out, std::string_view text);  // Python's repr of a str

}  // namespace runahead::jinja
