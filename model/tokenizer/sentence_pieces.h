// What the vocabularies of SentencePiece share: tokens are UTF-8 with U+2581 for a space, have scores, and some stand for a
// byte. Private to model/tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/tokenizer/plain_encoder.h"
#include "model/weights/gguf.h"

namespace runahead {

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

// Found by a std::string_view without a copy of it.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename T>
using TextMap = std::unordered_map<std::string, T, TextHash, std::equal_to<>>;

// what: as in "lacks a token for the byte 10".
std::unexpected<Error> bad_tokenizer(const std::string& what);

void append_with_space_symbols(std::string_view text, std::string& out);
std::string with_spaces(std::string_view piece);
// Does a token hold a space behind another character?
bool joins_words(std::string_view piece);
// `<0x0A>` -> 10; -1 for any other text.
int byte_of_piece(std::string_view piece);
// What a token stands for that is no control token.
std::string piece_bytes(std::string_view piece, TokenKind kind);
// tokenizer.ggml.scores, 0 for all if the file has none. kInvalidModel if they are too few or one is no number.
Result<std::vector<float>> read_scores(const Gguf& file, size_t count);
// May text become this token by its scores? Not what is no text, and not a byte's `<0x0A>`.
bool is_made_of_text(std::string_view piece, TokenKind kind);

}  // namespace runahead
