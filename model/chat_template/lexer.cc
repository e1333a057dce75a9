#include "model/chat_template/lexer.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/utf8.h"
#include "model/chat_template/text.h"

namespace runahead::jinja {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool one_of(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}
  Result<std::vector<Token>> run();

 private:
  Result<void> tag(bool output);
  Result<void> code_token();
  Result<void> comment();
  Result<bool> raw();
  Result<void> string();
  Result<void> number();
  Result<void> op();
  Result<std::string> unescape(std::string_view body) const;
  void text(std::string_view text, char sign, bool output);
  bool end_tag(std::string_view end, bool output);
  void finish_tag(size_t length, char sign, bool trims_newline);

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(rest_.begin(), rest_.begin() + bytes, '\n'));
    rest_.remove_prefix(bytes);
  }
  void skip_space() { advance(rest_.size() - strip(rest_, {}, true, false).size()); }
  void emit(TokenKind kind, std::string text = {}) { tokens_.push_back({kind, line_, std::move(text), 0, 0}); }
  char sign_at(size_t pos) const {
    const char c = pos < rest_.size() ? rest_[pos] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  std::string source_;
  std::string_view rest_;
  int line_ = 1;
  bool line_starting_ = true;  // the next text begins at the start of a line
  std::string closers_;        // of the brackets that are open, innermost last
  std::vector<Token> tokens_;
};

Result<std::vector<Token>> Lexer::run() {
  while (!rest_.empty()) {
    size_t start = rest_.find('{');
    while (start != std::string_view::npos && (start + 1 >= rest_.size() || !one_of(rest_[start + 1], "{%#"))) {
      start = rest_.find('{', start + 1);
    }
    if (start == std::string_view::npos) {
      text(rest_, '+', true);
      advance(rest_.size());
      break;
    }
    const char type = rest_[start + 1];
    const char sign = sign_at(start + 2);
    text(rest_.substr(0, start), sign, type == '{');
    advance(start);
    if (type == '%' && TRY(raw())) continue;
    advance(sign ? 3 : 2);
    if (type == '#') {
      TRY(comment());
    } else {
      TRY(tag(type == '{'));
    }
  }
  emit(TokenKind::kEnd);
  return std::move(tokens_);
}

// The text before a tag; `sign` is the tag's white-space control.
void Lexer::text(std::string_view text, char sign, bool output) {
  if (sign == '-') {
    text = strip(text, {}, false, true);
  } else if (sign != '+' && !output) {  // lstrip_blocks
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if ((line_start > 0 || line_starting_) && strip(text.substr(line_start), {}, true, false).empty()) {
      text = text.substr(0, line_start);
    }
  }
  if (!text.empty()) emit(TokenKind::kText, std::string(text));
}

// Behind a closing tag of `length` bytes.
void Lexer::finish_tag(size_t length, char sign, bool trims_newline) {
  advance(length);
  const size_t before = rest_.size();
  const char* last = rest_.data();
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && trims_newline && rest_.starts_with('\n')) {
    advance(1);
  }
  line_starting_ = rest_.size() < before && last[before - rest_.size() - 1] == '\n';
}

Result<void> Lexer::comment() {
  const size_t end = rest_.find("#}");
  if (end == std::string_view::npos) return syntax_error(line_, "a comment has no end; close it with #}");
  const char sign = end > 0 ? sign_at(end - 1) : '\0';
  finish_tag(end + 2, sign, true);
  return {};
}

// {% raw %} text {% endraw %}: true if there was one at rest_.
Result<bool> Lexer::raw() {
  const auto match = [](std::string_view at, std::string_view word, char& sign) -> size_t {
    std::string_view rest = at.substr(2);
    if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
    rest = strip(rest, {}, true, false);
    if (!rest.starts_with(word)) return 0;
    rest = strip(rest.substr(word.size()), {}, true, false);
    sign = !rest.empty() && (rest[0] == '-' || (rest[0] == '+' && word == "endraw")) ? rest[0] : '\0';
    if (sign) rest.remove_prefix(1);
    return rest.starts_with("%}") ? at.size() - rest.size() + 2 : 0;
  };
  char sign = '\0';
  const size_t begin = match(rest_, "raw", sign);
  if (begin == 0) return false;
  finish_tag(begin, sign, false);
  for (size_t at = rest_.find("{%"); at != std::string_view::npos; at = rest_.find("{%", at + 1)) {
    const size_t end = match(rest_.substr(at), "endraw", sign);
    if (end == 0) continue;
    text(rest_.substr(0, at), sign_at(at + 2), false);
    advance(at);
    finish_tag(end, sign, true);
    return true;
  }
  return syntax_error(line_, "a raw block has no end; close it with {% endraw %}");
}

bool Lexer::end_tag(std::string_view end, bool output) {
  const char sign = sign_at(0);
  if (sign == '+' && output) return false;
  if (!rest_.substr(sign ? 1 : 0).starts_with(end)) return false;
  emit(output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd);
  finish_tag(sign ? 3 : 2, sign, !output);
  return true;
}

Result<void> Lexer::tag(bool output) {
  emit(output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin);
  while (true) {
    skip_space();
    if (rest_.empty()) return syntax_error(line_, "a tag has no end");
    if (closers_.empty() && end_tag(output ? "}}" : "%}", output)) return {};
    TRY(code_token());
  }
}

Result<void> Lexer::code_token() {
  const char c = rest_[0];
  if (is_digit(c)) return number();
  if (c == '"' || c == '\'') return string();
  if (!is_name_start(c)) return op();
  size_t length = 1;
  while (length < rest_.size() && (is_name_start(rest_[length]) || is_digit(rest_[length]))) ++length;
  emit(TokenKind::kName, std::string(rest_.substr(0, length)));
  advance(length);
  return {};
}

Result<void> Lexer::string() {
  size_t end = 1;
  while (end < rest_.size() && rest_[end] != rest_[0]) end += rest_[end] == '\\' ? 2 : 1;
  if (end >= rest_.size()) return syntax_error(line_, "a string has no closing quote");
  emit(TokenKind::kString, TRY(unescape(rest_.substr(1, end - 1))));
  advance(end + 1);
  return {};
}

// Python's escapes; an unknown one stays as it is.
Result<std::string> Lexer::unescape(std::string_view body) const {
  static constexpr std::string_view kLetters = "abfnrtv\\'\"";
  static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
  std::string out;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\' || i + 1 >= body.size()) {
      out += body[i];
      continue;
    }
    const char c = body[++i];
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos) {
      out += kMeanings[letter];
    } else if (c == '\n') {  // a line joined to the next one
    } else if (digits > 0 || (c >= '0' && c <= '7')) {
      const size_t start = digits > 0 ? i + 1 : i;
      size_t length = digits;
      if (digits == 0) {
        while (length < 3 && start + length < body.size() && one_of(body[start + length], "01234567")) ++length;
      }
      uint32_t code = 0;
      const char* first = body.data() + start;
      const char* last = body.data() + std::min(start + length, body.size());
      const auto parsed = std::from_chars(first, last, code, digits > 0 ? 16 : 8);
      if (parsed.ptr != first + length || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
        return syntax_error(line_, "a string has a bad escape");
      }
      append_char(out, code);
      i = start + length - 1;
    } else if (c == 'N') {
      return syntax_error(line_, "a string uses \\N{...}, which is not supported");
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

Result<void> Lexer::number() {
  const auto digits = [&](size_t pos) {  // end of a run of digits with single underscores between them
    while (pos < rest_.size() &&
           (is_digit(rest_[pos]) || (rest_[pos] == '_' && pos + 1 < rest_.size() && is_digit(rest_[pos + 1])))) {
      ++pos;
    }
    return pos;
  };
  const auto digit_at = [&](size_t pos) { return pos < rest_.size() && is_digit(rest_[pos]); };
  size_t end = digits(0);
  bool real = false;
  const bool after_dot = !tokens_.empty() && tokens_.back().text == "." && tokens_.back().kind == TokenKind::kOperator;
  int base = 10;
  if (rest_[0] == '0' && rest_.size() > 1 && one_of(rest_[1], "xXbBoO")) {
    base = (rest_[1] | 32) == 'x' ? 16 : (rest_[1] | 32) == 'b' ? 2 : 8;
    end = 2;
    while (end < rest_.size() && (isxdigit(static_cast<unsigned char>(rest_[end])) || rest_[end] == '_')) ++end;
  } else if (!after_dot) {
    if (end < rest_.size() && rest_[end] == '.' && digit_at(end + 1)) {
      end = digits(end + 1);
      real = true;
    }
    if (end < rest_.size() && (rest_[end] | 32) == 'e') {
      const size_t exponent = end + 1 + (sign_at(end + 1) ? 1 : 0);
      if (digit_at(exponent)) {
        end = digits(exponent);
        real = true;
      }
    }
  }
  std::string text(rest_.substr(base == 10 ? 0 : 2, end - (base == 10 ? 0 : 2)));
  std::erase(text, '_');
  Token token{real ? TokenKind::kFloat : TokenKind::kInteger, line_, {}, 0, 0};
  const char* last = text.data() + text.size();
  const auto parsed =
      real ? std::from_chars(text.data(), last, token.real) : std::from_chars(text.data(), last, token.integer, base);
  if (parsed.ec != std::errc() || parsed.ptr != last) return syntax_error(line_, "a number is malformed or too large");
  tokens_.push_back(std::move(token));
  advance(end);
  return {};
}

Result<void> Lexer::op() {
  static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
  size_t length = 1;
  for (const std::string_view two : kTwo) {
    if (rest_.starts_with(two)) length = 2;
  }
  const char c = rest_[0];
  if (length == 1 && !one_of(c, "+-/*%~[](){}><=.:|,;")) {
    return syntax_error(line_, "unexpected character '" + std::string(1, c) + "'");
  }
  if (c == '(' || c == '[' || c == '{') {
    closers_ += c == '(' ? ')' : c == '[' ? ']' : '}';
  } else if (c == ')' || c == ']' || c == '}') {
    if (closers_.empty() || closers_.back() != c) return syntax_error(line_, "unexpected '" + std::string(1, c) + "'");
    closers_.pop_back();
  }
  emit(TokenKind::kOperator, std::string(rest_.substr(0, length)));
  advance(length);
  return {};
}

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  if (utf8_valid_prefix(source) != source.size())
    return fail(ErrorCode::kInvalidModel, "the chat template is not valid UTF-8");
  return Lexer(normalize_newlines(source)).run();
}

}  // namespace runahead::jinja
