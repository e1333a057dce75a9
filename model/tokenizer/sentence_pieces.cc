#include "model/tokenizer/sentence_pieces.h"

#include <cmath>

namespace runahead {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

std::unexpected<Error> bad_tokenizer(const std::string& what) {
  return fail(ErrorCode::kInvalidModel, "the tokenizer " + what + "; download the model again");
}

void append_with_space_symbols(std::string_view text, std::string& out) {
  for (const char c : text) {
    if (c == ' ') out += kSpaceSymbol;
    else out += c;
  }
}

std::string with_spaces(std::string_view piece) {
  std::string out;
  for (size_t at; (at = piece.find(kSpaceSymbol)) != std::string_view::npos;) {
    out += piece.substr(0, at);
    out += ' ';
    piece.remove_prefix(at + kSpaceSymbol.size());
  }
  return out += piece;
}

bool joins_words(std::string_view piece) {
  for (size_t at = piece.find(kSpaceSymbol, 1); at != std::string_view::npos; at = piece.find(kSpaceSymbol, at + 1))
    if (at < kSpaceSymbol.size() || !piece.substr(at - kSpaceSymbol.size()).starts_with(kSpaceSymbol)) return true;
  return false;
}

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string piece_bytes(std::string_view piece, TokenKind kind) {
  const int byte = kind == TokenKind::kText ? byte_of_piece(piece) : -1;
  return byte >= 0 ? std::string(1, static_cast<char>(byte)) : with_spaces(piece);
}

Result<std::vector<float>> read_scores(const Gguf& file, size_t count) {
  constexpr const char* kKey = "tokenizer.ggml.scores";
  std::vector<float> scores(count);
  if (!file.has(kKey)) return scores;
  if (const auto whole = file.i32s(kKey)) {
    scores.assign(whole->begin(), whole->end());
  } else {
    scores = TRY(file.f32s(kKey));
  }
  const auto bad = [&](const std::string& what) {
    return fail(ErrorCode::kInvalidModel, "tokenizer.ggml.scores " + what + "; convert the model again", kKey);
  };
  if (scores.size() < count)
    return bad("has " + std::to_string(scores.size()) + " entries for " + std::to_string(count) + " tokens");
  for (size_t i = 0; i < count; ++i)
    if (!std::isfinite(scores[i])) return bad("holds no number for token " + std::to_string(i));
  return scores;
}

bool is_made_of_text(std::string_view piece, TokenKind kind) {
  if (piece.empty() || kind == TokenKind::kControl) return false;
  return kind == TokenKind::kUserDefined || byte_of_piece(piece) < 0;
}

}  // namespace runahead
