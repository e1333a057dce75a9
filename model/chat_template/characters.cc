#include "model/chat_template/characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

#include "model/chat_template/text.h"

namespace runahead::jinja {
namespace {

constexpr char32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2, kSharpS = 0xDF, kCapitalIWithDot = 0x130;
constexpr char32_t kIota = 0x3B9, kIotaBelow = 0x345;

struct Range {
  char32_t first, last;
};

// Of Numeric_Type Digit: digits that count no tens. utf8proc has no such property.
constexpr Range kDigitsThatAreNoDecimals[] = {
    {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
    {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
    {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};

// Of Word_Break MidLetter, MidNumLet and Single_Quote: full stop, colon, apostrophe, middle dot and their like.
constexpr char32_t kMarksWithinWords[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
                                          0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_letter_of(utf8proc_category_t c) { return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO; }
bool is_number_of(utf8proc_category_t c) { return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO; }

bool is_upper(char32_t c) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0; }
bool is_lower(char32_t c) { return utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0; }
bool is_title(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || is_title(c); }

// Unicode 15, 3.13, D136.
bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::ranges::binary_search(kMarksWithinWords, c);
  }
}

char32_t simple_upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }

// The full case folding of one character.
class Folded {
 public:
  explicit Folded(char32_t c) {
    int boundary = 0;
    const auto size =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), chars_.data(),
                                static_cast<utf8proc_ssize_t>(chars_.size()), UTF8PROC_CASEFOLD, &boundary);
    chars_[0] = size > 0 ? chars_[0] : static_cast<utf8proc_int32_t>(c);
    size_ = size > 0 ? static_cast<size_t>(size) : 1;
  }
  size_t size() const { return size_; }
  std::span<const utf8proc_int32_t> chars() const& { return std::span(chars_).first(size_); }
  void chars() const&& = delete;  // a range-for over a temporary's would outlive it

 private:
  std::array<utf8proc_int32_t, 4> chars_{};  // at most 3
  size_t size_ = 0;
};

// utf8proc maps characters to characters. Those that Unicode maps to several (SpecialCasing.txt) are the small letters
// that fold to several: their capitals are the capitals of what they fold to.
void append_upper(std::string& out, char32_t c) {
  if (c < 0x80) return append_char(out, simple_upper(c));
  const Folded folded(c);
  if (folded.size() == 1 || is_upper(c)) return append_char(out, simple_upper(c));
  for (const utf8proc_int32_t part : folded.chars()) append_char(out, simple_upper(static_cast<char32_t>(part)));
}

void append_title(std::string& out, char32_t c) {
  const auto simple = static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
  const bool one = simple != c && c != kSharpS;  // of the sharp s utf8proc makes U+1E9E, Unicode "Ss"
  const Folded folded(c);
  if (one || folded.size() == 1 || is_upper(c) || is_title(c)) return append_char(out, simple);
  bool has_capital = false;
  for (const utf8proc_int32_t part : folded.chars()) {
    const auto small = static_cast<char32_t>(part), capital = simple_upper(small);
    append_char(out, has_capital ? (small == kIota ? kIotaBelow : small) : capital);
    has_capital = has_capital || capital != small;
  }
}

// The first character of `text` that is not case-ignorable has case.
bool begins_with_cased(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (!is_case_ignorable(c)) return is_cased(c);
  }
  return false;
}

bool ends_with_cased(std::string_view text) {
  for (size_t end = text.size(); end > 0;) {
    size_t start = end - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    end = start;
    const char32_t c = next_char(text, start);
    if (!is_case_ignorable(c)) return is_cased(c);
  }
  return false;
}

// Of c, which lies before `pos` in `text`.
void append_lower(std::string& out, std::string_view text, size_t pos, char32_t c) {
  if (c == kCapitalSigma && ends_with_cased(text.substr(0, pos - 2)) && !begins_with_cased(text.substr(pos)))
    return append_char(out, kFinalSigma);
  append_char(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  if (c == kCapitalIWithDot) append_char(out, 0x307);  // the one letter whose small form is two: i and the dot
}

}  // namespace

bool is_space(char32_t c) {
  const utf8proc_property_t& of = *utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return of.category == UTF8PROC_CATEGORY_ZS || of.bidi_class == UTF8PROC_BIDI_CLASS_WS ||
         of.bidi_class == UTF8PROC_BIDI_CLASS_B || of.bidi_class == UTF8PROC_BIDI_CLASS_S;
}

bool is_alpha(char32_t c) { return is_letter_of(category(c)); }
bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(char32_t c) {
  return is_decimal(c) || std::ranges::any_of(kDigitsThatAreNoDecimals,
                                              [c](Range range) { return c >= range.first && c <= range.last; });
}
bool is_numeric(char32_t c) { return is_number_of(category(c)); }
bool is_alnum(char32_t c) { return is_letter_of(category(c)) || is_number_of(category(c)); }

bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool is_upper(std::string_view text) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (is_lower(c) || is_title(c)) return false;
    any = any || is_upper(c);
  }
  return any;
}

bool is_lower(std::string_view text) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (is_upper(c) || is_title(c)) return false;
    any = any || is_lower(c);
  }
  return any;
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(out, next_char(text, pos));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    append_lower(out, text, pos, c);
  }
  return out;
}

std::string casefold(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const Folded folded(next_char(text, pos));
    for (const utf8proc_int32_t part : folded.chars()) append_char(out, static_cast<char32_t>(part));
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const bool first = pos == 0;
    const char32_t c = next_char(text, pos);
    if (first) append_title(out, c);
    else append_lower(out, text, pos, c);
  }
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (in_word) append_lower(out, text, pos, c);
    else append_title(out, c);
    in_word = is_cased(c);
  }
  return out;
}

}  // namespace runahead::jinja
