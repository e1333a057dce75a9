#include "base/utf8.h"

namespace runahead {
namespace {

// The second byte's range tells overlong forms, surrogates and code points that are too large (RFC 3629, section 4).
struct Lead {
  size_t bytes = 0;  // of the whole character; 0: this byte begins none
  uint8_t second_min = 0x80, second_max = 0xBF;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

}  // namespace

Utf8Sequence utf8_sequence(std::string_view text) {
  using Kind = Utf8Sequence::Kind;
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.bytes == 0) return {Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i == text.size()) return {Kind::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const bool fits = i == 1 ? byte >= lead.second_min && byte <= lead.second_max : (byte & 0xC0) == 0x80;
    if (!fits) return {Kind::kInvalid, i};
  }
  return {Kind::kCharacter, lead.bytes};
}

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Sequence next = utf8_sequence(text.substr(at));
    if (next.kind != Utf8Sequence::Kind::kCharacter) break;
    at += next.bytes;
  }
  return at;
}

std::string valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Sequence sequence = utf8_sequence(bytes);
    text += sequence.kind == Utf8Sequence::Kind::kCharacter ? bytes.substr(0, sequence.bytes) : kReplacementCharacter;
    bytes.remove_prefix(sequence.bytes);
  }
  return text;
}

int64_t character_count(std::string_view bytes) {
  int64_t count = 0;
  for (; !bytes.empty(); ++count) bytes.remove_prefix(utf8_sequence(bytes).bytes);
  return count;
}

}  // namespace runahead
