// How tokenizer.json makes pieces of a text: its normaliser, pre-tokenizer and model.
#include <algorithm>

#include "model/weights/gguf.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_steps.h"
#include "model/weights/hf_tokenizer.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr std::string_view kByteLevel =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";  // `tokenizers`' own

// Of the stand-ins of bytes, \p{N}: 0 to 9, and in Latin-1 the raised 1 to 3 and three fractions.
bool is_number(std::string_view stand_in) {
  if (stand_in.size() == 1) return stand_in[0] >= '0' && stand_in[0] <= '9';
  constexpr std::string_view kNumbers = "\xB2\xB3\xB9\xBC\xBD\xBE";
  return stand_in.size() == 2 && stand_in[0] == '\xC2' && kNumbers.contains(stand_in[1]);
}
bool ends_in_number(std::string_view token) {
  return is_number(token.substr(token.size() - 1)) || (token.size() > 1 && is_number(token.substr(token.size() - 2)));
}
bool begins_with_number(std::string_view token) {
  return is_number(token.substr(0, 1)) || is_number(token.substr(0, 2));
}

class Steps {
 public:
  Steps(const json& tokenizer, const std::string& name) : t_(tokenizer), name_(name) {}

  Result<void> read(GgufKeys& keys) {
    const json& model = member("model");
    if (text_of(model, "type") != "BPE" && !(text_of(model, "type").empty() && model.contains("merges")))
      return unsupported("model", model);
    TRY(check_model(model));
    TRY(read_normalizer(member("normalizer")));
    TRY(read_pre_tokenizer(member("pre_tokenizer")));
    const bool fallback = flag_of(model, "byte_fallback", false), ignores = flag_of(model, "ignore_merges", false);
    if (byte_level_) {
      if (prepends_ || replaces_space_) return unsupported("normalizer", member("normalizer"));
      keys.str("tokenizer.ggml.model", "gpt2");
      keys.strings("runahead.tokenizer.expressions", expressions_);
      keys.boolean("runahead.tokenizer.ignore_merges", ignores);
      if (nfc_) keys.str("runahead.tokenizer.normalizer", "nfc");
      return byte_level_merges(model, keys);
    }
    if (!fallback || ignores || nfc_ || !replaces_space_) return unsupported("pre_tokenizer", member("pre_tokenizer"));
    keys.str("tokenizer.ggml.model", "merged-characters");
    keys.str("runahead.tokenizer.space_prefix", space_prefix_);
    if (normalises_spaces_) keys.str("runahead.tokenizer.normalizer", "spaces");
    return character_merges(model, keys);
  }

 private:
  const json& member(const char* name) const { return member_of(t_, name); }
  std::unexpected<Error> unsupported(const std::string& part, const json& step) const {
    return unsupported_step(name_, "a tokenizer", part, step);
  }
  std::unexpected<Error> bad(const std::string& what) const {
    return fail(ErrorCode::kInvalidModel, name_ + ": " + what + "; download the model again");
  }

  Result<void> check_model(const json& model) const {
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text_of(model, name).empty()) return unsupported("model", model);
    if (const auto dropout = model.find("dropout");
        dropout != model.end() && !dropout->is_null() && !(dropout->is_number() && dropout->get<double>() == 0))
      return unsupported("model", model);
    return {};
  }

  Result<void> read_normalizer(const json& normalizer) {
    for (const json* step : steps_of(normalizer, "normalizers")) {
      const std::string_view type = text_of(*step, "type");
      if (type == "NFC") {
        nfc_ = true;
      } else if (type == "Prepend" && text_of(*step, "prepend") == kHfSpace && !replaces_space_) {
        prepends_ = true;
        space_prefix_ = "each";
      } else if (type == "Replace" && pattern_of(*step, "String") == " " && text_of(*step, "content") == kHfSpace) {
        replaces_space_ = normalises_spaces_ = true;
      } else {
        return unsupported("normalizer", *step);
      }
    }
    return {};
  }

  Result<void> read_pre_tokenizer(const json& pre) {
    for (const json* step : steps_of(pre, "pretokenizers")) {
      const std::string_view type = text_of(*step, "type");
      const bool fits = type == "ByteLevel"     ? take_byte_level(*step)
                        : type == "Split"       ? take_split(*step)
                        : type == "Digits"      ? take_digits(*step)
                        : type == "Metaspace"   ? take_metaspace(*step)
                        : type == "Punctuation" ? take_punctuation(*step)
                                                : false;
      if (!fits) return unsupported("pre_tokenizer", *step);
    }
    return {};
  }

  bool take_byte_level(const json& step) {
    if (byte_level_ || flag_of(step, "add_prefix_space", true)) return false;
    byte_level_ = true;
    if (flag_of(step, "use_regex", true)) expressions_.emplace_back(kByteLevel);
    return true;
  }
  // `Removed` and inverted: what does not match goes. The expressions that we have match everything.
  bool take_split(const json& step) {
    constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
    const std::string_view behavior = text_of(step, "behavior"), regex = pattern_of(step, "Regex");
    const bool invert = flag_of(step, "invert", false);
    if (replaces_space_ && pattern_of(step, "String") == " " && !invert)
      return true;  // Gemma: there are no spaces by then
    if (regex.empty() || (byte_level_ && regex != kThreeDigits))
      return false;  // behind ByteLevel it cuts stand-ins of bytes
    if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) return false;
    expressions_.emplace_back(regex);
    return true;
  }
  bool take_digits(const json& step) {
    const bool each = flag_of(step, "individual_digits", false);
    if (each == byte_level_) return false;
    if (each) expressions_.emplace_back(R"(\p{N})");
    else parts_digits_ = true;
    return true;
  }
  bool take_punctuation(const json& step) {
    if (text_of(step, "behavior") != "Contiguous") return false;
    expressions_.emplace_back(R"([\p{P}\$\+<=>\^~\|`]+)");  // Unicode's, and ASCII's that are symbols to it
    return true;
  }
  bool take_metaspace(const json& step) {
    if (text_of(step, "replacement") != kHfSpace || flag_of(step, "split", true) || prepends_) return false;
    const std::string_view scheme = text_of(step, "prepend_scheme");
    if (scheme != "first" && scheme != "always" && scheme != "never") return false;
    replaces_space_ = true;
    space_prefix_ = scheme == "never" ? "none" : scheme == "first" ? "first_if_missing" : "each_if_missing";
    return true;
  }

  // Of "a b" or ["a", "b"].
  Result<std::pair<std::string, std::string>> merge_of(const json& merge) const {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string() &&
        !merge[0].get_ref<const std::string&>().empty() && !merge[1].get_ref<const std::string&>().empty())
      return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
    const std::string text = merge.is_string() ? merge.get<std::string>() : std::string();
    const size_t space = text.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == text.size() ||
        text.find(' ', space + 1) != std::string::npos)
      return bad("a merge is no pair of tokens");
    return std::pair(text.substr(0, space), text.substr(space + 1));
  }
  Result<const json*> merges_of(const json& model) const {
    const auto found = model.find("merges");
    if (found == model.end() || !found->is_array()) return bad("its model has no merges");
    return &*found;
  }
  Result<void> byte_level_merges(const json& model, GgufKeys& keys) const {
    std::vector<std::string> merges;
    for (const json& one : *TRY(merges_of(model))) {
      const auto [left, right] = TRY(merge_of(one));
      // Falcon's Digits behind ByteLevel would part them. Its merges, learned so, join none; then it changes nothing.
      if (parts_digits_ && ends_in_number(left) != begins_with_number(right))
        return unsupported("pre_tokenizer", member("pre_tokenizer"));
      merges.push_back(left + " " + right);
    }
    keys.strings("tokenizer.ggml.merges", merges);
    return {};
  }
  // Tokens may hold spaces: left and right come one after the other.
  Result<void> character_merges(const json& model, GgufKeys& keys) const {
    std::vector<std::string> merges;
    for (const json& one : *TRY(merges_of(model))) {
      auto [left, right] = TRY(merge_of(one));
      merges.push_back(std::move(left)), merges.push_back(std::move(right));
    }
    keys.strings("runahead.tokenizer.merges", merges);
    return {};
  }

  const json& t_;
  const std::string& name_;
  bool nfc_ = false, prepends_ = false, replaces_space_ = false, byte_level_ = false;
  bool normalises_spaces_ = false;  // in the normaliser, not in the pre-tokenizer
  bool parts_digits_ = false;  // behind ByteLevel
  std::string space_prefix_ = "none";
  std::vector<std::string> expressions_;
};

}  // namespace

Result<void> read_hf_text_steps(const json& tokenizer, const std::string& name, GgufKeys& keys) {
  const auto model = tokenizer.find("model");
  if (model == tokenizer.end() || !model->is_object())
    return fail(ErrorCode::kInvalidModel, name + ": it has no model; download the model again");
  if (is_hf_unigram(*model)) return read_hf_unigram_steps(tokenizer, name, keys);
  return Steps(tokenizer, name).read(keys);
}

}  // namespace runahead
