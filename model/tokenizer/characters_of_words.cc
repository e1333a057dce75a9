#include "model/tokenizer/characters_of_words.h"

#include <utf8proc.h>

#include "base/utf8.h"

namespace runahead {
namespace {

CharacterOfText last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  const CharacterOfText last = first_character(text.substr(at));
  return last.is_one && at + last.bytes == text.size() ? last : CharacterOfText{};
}

// Alphabetic, marks, decimal digits, connectors and joiners: Unicode's annex C of UTS 18.
bool is_of_word(char32_t c) {
  constexpr char32_t kNoJoiner = 0x200C, kJoiner = 0x200D;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_SO:  // letters in circles and squares
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
    default:
      return c == kNoJoiner || c == kJoiner;
  }
}

}  // namespace

CharacterOfText first_character(std::string_view text) {
  if (utf8_sequence(text).kind != Utf8Sequence::Kind::kCharacter) return {};
  utf8proc_int32_t code = 0;
  const auto bytes = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                      static_cast<utf8proc_ssize_t>(text.size()), &code);
  return bytes < 1 ? CharacterOfText{} : CharacterOfText{static_cast<char32_t>(code), static_cast<size_t>(bytes), true};
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view without_spaces_left(std::string_view text) {
  while (!text.empty()) {
    const CharacterOfText c = first_character(text);
    if (!c.is_one || !is_white_space(c.code)) break;
    text.remove_prefix(c.bytes);
  }
  return text;
}

std::string_view without_spaces_right(std::string_view text) {
  while (!text.empty()) {
    const CharacterOfText c = last_character(text);
    if (!c.is_one || !is_white_space(c.code)) break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

bool begins_with_word(std::string_view text) {
  if (text.empty()) return false;
  const CharacterOfText c = first_character(text);
  return c.is_one && is_of_word(c.code);
}

bool ends_in_word(std::string_view text) {
  if (text.empty()) return false;
  const CharacterOfText c = last_character(text);
  return c.is_one && is_of_word(c.code);
}

}  // namespace runahead
