// Text as Python's str sees it: UTF-8 underneath, code points outside. Pure functions on valid UTF-8.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace runahead::jinja {

bool is_valid_utf8(std::string_view text);
// The code point at `pos`, which moves behind it.
char32_t next_char(std::string_view text, size_t& pos);
void append_char(std::string& out, char32_t c);
size_t count_chars(std::string_view text);
// Byte offset of character `index`, or the length if there are fewer.
size_t byte_offset(std::string_view text, size_t index);

bool is_space(char32_t c);  // str.isspace
bool is_alpha(char32_t c);  // letters of the scripts that have case, and every other letter beyond Latin-1
// Case of Latin, Greek, Cyrillic and Armenian; other scripts have none worth mapping.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title

// str.strip and friends; without `chars` it strips white space.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, bool left, bool right);

std::string float_repr(double value);                        // Python's repr: shortest digits that read back
void append_quoted_repr(std::string& out, std::string_view text);  // Python's repr of a str

}  // namespace runahead::jinja
