#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/check.h"
#include "base/limits.h"
#include "base/utf8.h"

namespace runahead {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Family {
  std::string_view names;                       // as llama.cpp's converter writes them, separated by spaces
  std::array<std::string_view, 4> expressions;  // the rest are empty
  bool ignore_merges = false;
  bool adds_bos = false;
};

// The rows of llama.cpp's table whose expressions we have (tests/golden/make_llama_vocab.py holds them against the library).
constexpr Family kFamilies[] = {
    {"default", {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", R"([0-9][0-9][0-9])"}},
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
     "roberta-bpe mpt olmo jais trillion granite-docling exaone4",
     {kGpt2}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", {R"(\p{N})", kGpt2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {kLlama3}, true, true},
    {"glm4 glm5", {kLlama3}, true},
    {"smaug-bpe dbrx chatglm-bpe", {kLlama3}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2", {kQwen2}},
};

bool has_name(std::string_view names, std::string_view wanted) {
  while (!names.empty()) {
    const size_t end = std::min(names.find(' '), names.size());
    if (names.substr(0, end) == wanted) return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

// \s is Unicode's White_Space to the models' own tokenizers. To PCRE2 it also holds U+180E, which lost the property in
// Unicode 6.3, so it is spelled out.
std::string with_exact_spaces(std::string_view expression) {
  std::string out;
  for (size_t i = 0; i < expression.size(); ++i) {
    const std::string_view pair = expression.substr(i, 2);
    if (pair == R"(\s)" || pair == R"(\S)") {
      out += pair == R"(\s)" ? R"(\p{White_Space})" : R"(\P{White_Space})";
      ++i;
    } else if (pair[0] == '\\') {
      out += pair;
      ++i;
    } else {
      out += pair[0];
    }
  }
  return out;
}

}  // namespace

class PreTokenizer::Expression {
 public:
  explicit Expression(std::string_view text) {
    const std::string pattern = with_exact_spaces(text);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &at, nullptr);
    RUNAHEAD_CHECK(code_ != nullptr, "a pattern of ours that PCRE2 does not compile: " + pattern);
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // without the JIT (no executable memory) matching is only slower
  }
  ~Expression() { pcre2_code_free(code_); }
  Expression(const Expression&) = delete;
  Expression& operator=(const Expression&) = delete;

  const pcre2_code* code() const { return code_; }

 private:
  pcre2_code* code_ = nullptr;
};

class PreTokenizer::Matcher {
 public:
  Matcher() : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    RUNAHEAD_CHECK(data_ != nullptr && context_ != nullptr, "out of memory");
    pcre2_set_match_limit(context_, limits::kRegexStepsMax);
  }
  ~Matcher() {
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // Appends matches and the gaps between them. `text` is valid UTF-8.
  Result<void> split(const Expression& expression, std::string_view text, std::vector<std::string_view>& pieces) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t at = 0;
    while (at < text.size()) {
      const int matched = pcre2_match(expression.code(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, data_, context_);
      if (matched == PCRE2_ERROR_NOMATCH) break;
      if (matched < 0)
        return fail(ErrorCode::kInvalidArgument,
                    "the text is too hard to split into words; shorten its runs of spaces");
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data_);
      RUNAHEAD_CHECK(ends[1] > ends[0] && ends[0] >= at, "an expression that matches nothing");
      if (ends[0] > at) pieces.push_back(text.substr(at, ends[0] - at));
      pieces.push_back(text.substr(ends[0], ends[1] - ends[0]));
      at = ends[1];
    }
    if (at < text.size()) pieces.push_back(text.substr(at));
    return {};
  }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

Result<PreTokenizer> PreTokenizer::load(std::string_view name) {
  for (const Family& family : kFamilies) {
    if (!has_name(family.names, name)) continue;
    PreTokenizer pre;
    pre.ignore_merges_ = family.ignore_merges;
    pre.adds_bos_ = family.adds_bos;
    for (const std::string_view expression : family.expressions) {
      if (!expression.empty()) pre.expressions_.push_back(std::make_unique<const Expression>(expression));
    }
    return pre;
  }
  return fail(
      ErrorCode::kUnsupported,
      "the pre-tokenizer '" + std::string(name) +
          "' is not supported; docs/tokenizers.md lists those that are. If the file misnames it, give the right name: "
          "--override-kv tokenizer.ggml.pre=str:NAME",
      "tokenizer.ggml.pre");
}

Result<void> PreTokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  Matcher matcher;
  std::vector<std::string_view> from, to;
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid > 0) {
      from.assign(1, text.substr(0, valid));
      for (const auto& expression : expressions_) {
        to.clear();
        for (const std::string_view piece : from) TRY(matcher.split(*expression, piece, to));
        from.swap(to);
      }
      pieces.insert(pieces.end(), from.begin(), from.end());
      text.remove_prefix(valid);
    }
    size_t invalid = 0;
    while (invalid < text.size()) {
      const Utf8Sequence next = utf8_sequence(text.substr(invalid));
      if (next.kind == Utf8Sequence::Kind::kCharacter) break;
      invalid += next.bytes;
    }
    if (invalid > 0) pieces.push_back(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
  return {};
}

}  // namespace runahead
