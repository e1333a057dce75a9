// UTF-8, strictly (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace runahead {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Sequence {
  enum class Kind { kCharacter, kInvalid, kIncomplete };
  Kind kind = Kind::kCharacter;
  size_t bytes = 0;  // kInvalid: the longest stretch that one U+FFFD stands for (Unicode 15, 3.9, "maximal subpart")
};

// What `text` begins with; `text` is not empty. kIncomplete: more bytes could still make it a character.
Utf8Sequence utf8_sequence(std::string_view text);
// How many bytes from the start of `text` are whole valid characters.
size_t utf8_valid_prefix(std::string_view text);
// Replaces every byte sequence that is not UTF-8 by U+FFFD.
std::string valid_utf8(std::string_view bytes);
// Unicode code points that valid_utf8(bytes) has.
int64_t character_count(std::string_view bytes);

}  // namespace runahead
