// Which characters are spaces, and which are of a word, to the expressions \s and \w of `tokenizers` (Rust's, of Unicode). Bytes
// that are no UTF-8 are neither. Pure. Private to model/tokenizer.
#pragma once

#include <cstddef>
#include <string_view>

namespace runahead {

// A character and how many bytes it has; one byte for what is no UTF-8.
struct CharacterOfText {
  char32_t code = 0;
  size_t bytes = 1;
  bool is_one = false;
};
// Of a text that is not empty.
CharacterOfText first_character(std::string_view text);

// Unicode's White_Space.
bool is_white_space(char32_t c);
std::string_view without_spaces_left(std::string_view text);
std::string_view without_spaces_right(std::string_view text);

bool begins_with_word(std::string_view text);
bool ends_in_word(std::string_view text);

}  // namespace runahead
