#include "services/gateway/answer_text.h"

#include <algorithm>

namespace runahead {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Sequence {
  size_t length;  // bytes that belong together
  enum { kWhole, kBroken, kUnfinished } state;
};

// The UTF-8 sequence at the front of `bytes` (Unicode 15, table 3-7: no overlong forms, no surrogates, up to U+10FFFF).
Sequence first_sequence(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {1, Sequence::kWhole};
  const size_t need = lead >= 0xC2 && lead <= 0xDF ? 2 : lead >= 0xE0 && lead <= 0xEF ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
  if (need == 0) return {1, Sequence::kBroken};
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < need; ++i) {
    if (i == bytes.size()) return {i, Sequence::kUnfinished};
    const bool continues = i == 1 ? at(i) >= low && at(i) <= high : at(i) >= 0x80 && at(i) <= 0xBF;
    if (!continues) return {i, Sequence::kBroken};
  }
  return {need, Sequence::kWhole};
}

// Bytes at the end of `bytes` that may become a character when more come.
size_t unfinished_tail(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const auto c = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if (c >= 0xC0) return first_sequence(bytes.substr(bytes.size() - back)).state == Sequence::kUnfinished ? back : 0;
    if (c < 0x80) return 0;
  }
  return 0;
}

// Bytes at the end of `text` that are a proper beginning of `stop`.
size_t begun(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

std::string valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Sequence sequence = first_sequence(bytes);
    text += sequence.state == Sequence::kWhole ? bytes.substr(0, sequence.length) : kReplacement;
    bytes.remove_prefix(sequence.length);
  }
  return text;
}

size_t AnswerText::held_back() const {
  size_t held = unfinished_tail(pending_);
  for (const std::string& stop : stop_strings_) held = std::max(held, begun(pending_, stop));
  return held;
}

TextPiece AnswerText::push(const SampledToken& token, const std::string& bytes) {
  const size_t begin = released_ + pending_.size();
  tokens_.push_back({token, begin, begin + bytes.size()});
  pending_ += bytes;
  size_t stop_at = std::string::npos;
  for (const std::string& stop : stop_strings_) stop_at = std::min(stop_at, pending_.find(stop));
  if (stop_at != std::string::npos) return release(stop_at, true);
  return release(pending_.size() - held_back(), false);
}

TextPiece AnswerText::flush() { return release(pending_.size(), false); }

TextPiece AnswerText::release(size_t bytes, bool stopped) {
  TextPiece piece{.text = valid_utf8(std::string_view(pending_).substr(0, bytes)), .stopped = stopped};
  pending_.erase(0, bytes);
  released_ += bytes;
  while (!tokens_.empty() && (tokens_.front().begin < released_ || tokens_.front().end <= released_)) {
    piece.tokens.push_back(std::move(tokens_.front().token));
    tokens_.pop_front();
  }
  return piece;
}

}  // namespace runahead
