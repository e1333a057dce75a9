#include "services/gateway/answer/incremental_detokenizer.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/utf8.h"

namespace runahead {
namespace {

// Bytes at the end of `bytes` that may become a character when more come.
size_t unfinished_tail(std::string_view bytes) {
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const auto c = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if (c >= 0xC0)
      return utf8_sequence(bytes.substr(bytes.size() - back)).kind == Utf8Sequence::Kind::kIncomplete ? back : 0;
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

// Takes the characters off `text` that are whole within its first `bytes`, and counts them.
int64_t take_characters(std::string_view& text, size_t bytes) {
  int64_t count = 0;
  for (size_t taken = 0; taken < bytes; ++count) {
    const size_t next = utf8_sequence(text).bytes;
    if (taken + next > bytes) break;
    taken += next;
    text.remove_prefix(next);
  }
  return count;
}

}  // namespace

size_t IncrementalDetokenizer::held_back() const {
  size_t held = unfinished_tail(pending_);
  for (const std::string& stop : stop_strings_) held = std::max(held, begun(pending_, stop));
  return held;
}

TextPiece IncrementalDetokenizer::push(const SampledToken& token, std::string bytes) {
  if (const auto shown = shown_.find(token.token); bytes.empty() && shown != shown_.end()) bytes = shown->second;
  const size_t begin = released_ + pending_.size();
  tokens_.push_back({token, begin, begin + bytes.size()});
  pending_ += bytes;
  if (unstoppable_ > 0) {
    --unstoppable_;
    return release(pending_.size() - unfinished_tail(pending_), false);
  }
  size_t stop_begin = std::string::npos, stop_end = std::string::npos;
  std::string_view first;
  for (const std::string& stop : stop_strings_) {
    const size_t found = pending_.find(stop);
    if (found == std::string::npos) continue;
    const size_t end = found + stop.size();
    if (std::pair(end, found) >= std::pair(stop_end, stop_begin)) continue;
    std::tie(stop_end, stop_begin) = std::pair(end, found);
    first = stop;
  }
  if (stop_end != std::string::npos) {
    TextPiece piece = release(stop_begin, true);
    piece.stop = first;
    return piece;
  }
  return release(pending_.size() - held_back(), false);
}

TextPiece IncrementalDetokenizer::flush() { return release(pending_.size(), false); }

TextPiece IncrementalDetokenizer::release(size_t bytes, bool stopped) {
  std::string_view shown = std::string_view(pending_).substr(0, bytes);
  TextPiece piece{.text = valid_utf8(shown), .stopped = stopped};
  const size_t end = released_ + bytes;
  const auto count_up_to = [&](size_t place) {
    const size_t before = shown.size();
    characters_ += take_characters(shown, place - released_);
    released_ += before - shown.size();
  };
  while (!tokens_.empty() && (tokens_.front().begin < end || tokens_.front().end <= end)) {
    count_up_to(tokens_.front().begin);
    piece.tokens.push_back({std::move(tokens_.front().token), characters_});
    tokens_.pop_front();
  }
  count_up_to(end);
  pending_.erase(0, bytes);
  return piece;
}

}  // namespace runahead
