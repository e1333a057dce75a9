// Characters and their case as Python's str sees them, by utf8proc's tables of Unicode 15 (Python 3.11 has those of 14,
// which know 4,489 characters fewer). Pure functions on valid UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace runahead::jinja {

bool is_space(char32_t c);  // str.isspace
bool is_alpha(char32_t c);  // str.isalpha
bool is_decimal(char32_t c);  // str.isdecimal
bool is_digit(char32_t c);  // str.isdigit
// str.isnumeric, but for the ideographs that are numbers: utf8proc has no numeric values.
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);  // str.isalnum
bool is_printable(char32_t c);

bool is_upper(std::string_view text);  // str.isupper: it has letters of case, and all are capitals
bool is_lower(std::string_view text);
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string casefold(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);

}  // namespace runahead::jinja
