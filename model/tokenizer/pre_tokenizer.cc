#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/check.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "model/weights/gguf.h"

namespace runahead {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Digits, then everything else, of DeepSeek V3 and those who took its tokenizer over.
constexpr std::string_view kThreeDigits = R"(\p{N}{1,3})";
constexpr std::string_view kIdeographs = R"([一-龥぀-ゟ゠-ヿ]+)";
constexpr std::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSpark =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n])"
    R"(|\s+(?!\S)|\s+)";
// Words by their capitals: GPT-4o's and its kin.
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                                     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                                     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kUfakzeka =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kMiniCpm5 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)"
    R"(|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S))"
    R"(|\s{1,2}(?!\S)|\s)";
constexpr std::string_view kExaoneMoe =  // possessive: nothing that follows could need what was taken
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*+(?: \p{L}\p{M}*+)*+)++|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?)"
    R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
// Kimi K2 as llama.cpp cuts it: not by capitals, as the model's own expression does.
constexpr std::string_view kKimi =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[^\P{L}\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF})"
    R"(\x{2F800}-\x{2FA1F}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words end at spaces and stops: Bloom's and its kin.
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr std::string_view kDeepSeekLetters =  // escapes: these look like other characters
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-)"
    R"(ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼ)"
    R"(ℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
constexpr std::string_view kDeepSeekScripts = R"([一-龥ࠀ-一가-퟿]+)";
// Not an expression: digits in threes, counted from the right (an expression would take quadratic time).
constexpr std::string_view kThousands = "thousands";

struct Family {
  std::string_view names;                       // as llama.cpp's converter writes them, separated by spaces
  std::array<std::string_view, 6> expressions;  // the rest are empty
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
    {"falcon", {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, R"([0-9][0-9][0-9])"}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {kLlama3}, true, true},
    {"glm4 glm5", {kLlama3}, true},
    {"smaug-bpe dbrx chatglm-bpe", {kLlama3}},
    {"jais-2", {kJais2}},
    {"minicpm5", {kThreeDigits, kMiniCpm5}, true},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"seed-coder", {kSeedCoder}},
    {"bailingmoe bailingmoe2 llada-moe", {kBailing}},
    {"ufakzeka", {kUfakzeka}},
    {"laguna", {R"([^\n]+|\n+)", kQwen2}},
    {"exaone-moe", {kExaoneMoe}},
    {"tekken", {kTekken}, true, true},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", {kGpt4o}},
    {"kimi-k2", {kKimi}},
    {"deepseek-llm",
     {R"([\r\n])", kDeepSeekLetters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"((?<!\s)\s++\z)", kDeepSeekScripts,
      R"(\p{N}+)"}},
    {"deepseek-coder", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekScripts, R"(\p{N})"}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", {kThreeDigits, kIdeographs, kDeepSeek3}},
    {"spark2_5", {kThreeDigits, kIdeographs, kSpark, R"(\p{N})"}},
    {"bloom poro-chat gpt3-finnish", {kBloom}},
    {"viking", {kBloom, R"(\p{N})"}},
    {"superbpe", {R"(\p{N}+)", kThousands}},
};

// Cuts where a multiple of three digits follows, and then no digit.
void split_thousands(std::string_view text, std::vector<std::string_view>& pieces) {
  const auto is_digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && is_digit(end)) ++end;
    for (size_t cut = at + (end - at) % 3; cut < end; cut += 3) {
      if (cut > begin) pieces.push_back(text.substr(begin, cut - begin));
      begin = cut;
    }
    at = std::max(end, at + 1);
  }
  if (begin < text.size()) pieces.push_back(text.substr(begin));
}

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
    if (text == kThousands) return;
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

  const pcre2_code* code() const { return code_; }  // null: kThousands

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
    if (expression.code() == nullptr) {
      split_thousands(text, pieces);
      return {};
    }
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

Result<PreTokenizer> PreTokenizer::of(std::span<const std::string_view> expressions, bool ignore_merges) {
  for (const Family& family : kFamilies) {
    std::vector<std::string_view> own(family.expressions.begin(), family.expressions.end());
    std::erase(own, "");
    if (ignore_merges != family.ignore_merges || !std::ranges::equal(own, expressions)) continue;
    return load(family.names.substr(0, family.names.find(' ')));
  }
  std::string all;
  for (const std::string_view one : expressions) all += (all.empty() ? "" : ", then ") + quoted(one);
  return fail(ErrorCode::kUnsupported, "the pre-tokenizer that cuts by " + (all.empty() ? "nothing" : all) +
                                           (ignore_merges ? " and takes words that are tokens whole" : "") +
                                           " is not supported; choose another model");
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
