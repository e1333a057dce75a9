// A Unigram tokenizer.json: its tokens and scores, and how its normaliser and pre-tokenizer make words of a text, as keys that
// model/tokenizer/text_steps.h reads.
#include <array>
#include <cmath>

#include "model/weights/gguf.h"
#include "model/weights/hf_steps.h"
#include "model/weights/hf_tokenizer.h"

namespace runahead {
namespace {

using nlohmann::json;

std::unexpected<Error> bad_unigram(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kInvalidModel, name + ": " + what + "; download the model again");
}

// Nothing for a text that is none: without padding, or with other characters.
std::optional<std::vector<std::byte>> from_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (size_t i = 0; i < kDigits.size(); ++i) values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::vector<std::byte> out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    uint32_t four = 0;
    for (size_t j = i; j < i + 4; ++j) {
      const bool padded = j >= text.size() - padding;
      const int8_t value = padded ? int8_t{0} : values[static_cast<uint8_t>(text[j])];
      if (value < 0) return std::nullopt;
      four = four << 6 | static_cast<uint32_t>(value);
    }
    for (const int shift : {16, 8, 0}) out.push_back(static_cast<std::byte>(four >> shift & 0xFF));
  }
  out.resize(out.size() - padding);
  return out;
}

class UnigramSteps {
 public:
  UnigramSteps(const json& tokenizer, const std::string& name) : t_(tokenizer), name_(name) {}

  Result<void> read(GgufKeys& keys) {
    TRY(check_model(member("model")));
    for (const json* step : steps_of(member("normalizer"), "normalizers")) {
      const bool fits = TRY(take_normalizer(*step, keys));
      if (!fits) return unsupported("normalizer", *step);
    }
    for (const json* step : steps_of(member("pre_tokenizer"), "pretokenizers"))
      if (!take_pre_tokenizer(*step)) return unsupported("pre_tokenizer", *step);
    const bool drops_first = !words_.empty() && words_.front() == "drop_whitespace";
    if (!metaspace_ && (drops_first || !replaces_space_)) return unsupported("pre_tokenizer", member("pre_tokenizer"));
    for (const json* step : steps_of(member("decoder"), "decoders"))
      if (!is_decoder(text_of(*step, "type"))) return unsupported("decoder", *step);
    keys.str("tokenizer.ggml.model", "unigram");
    keys.strings("runahead.tokenizer.steps", steps_);
    keys.strings("runahead.tokenizer.words", words_);
    return {};
  }

 private:
  const json& member(const char* name) const { return member_of(t_, name); }
  std::unexpected<Error> unsupported(const std::string& part, const json& step) const {
    return unsupported_step(name_, "a Unigram tokenizer", part, step);
  }

  Result<void> check_model(const json& model) const {
    for (const auto& [name, value] : model.items())
      if (name != "type" && name != "vocab" && name != "unk_id" && name != "byte_fallback" && !value.is_null())
        return fail(ErrorCode::kUnsupported,
                    name_ + ": 'model." + name +
                        "' of a Unigram tokenizer is not known to this version; choose another "
                        "model, or its GGUF file");
    return {};
  }

  // What becomes of a text does not depend on them: a space symbol is a space, and `<0x..>` a byte.
  static bool is_decoder(std::string_view type) {
    return type == "Metaspace" || type == "Replace" || type == "ByteFallback" || type == "Fuse" || type == "Strip";
  }

  void add(std::string_view step, std::string_view from = "", std::string_view to = "") {
    for (const std::string_view text : {step, from, to}) steps_.emplace_back(text);
  }

  Result<bool> take_normalizer(const json& step, GgufKeys& keys) {
    const std::string_view type = text_of(step, "type");
    if (type == "Precompiled") return take_rules(step, keys);
    if (type == "Replace") return take_replace(step);
    if (type == "Nmt") add("nmt");
    else if (type == "NFC") add("nfc");
    else if (type == "NFKC") add("nfkc");
    else if (type == "Prepend" && text_of(step, "prepend") == kHfSpace) add("prepend", "", kHfSpace);
    else if (type != "Strip") return false;
    if (type != "Strip") return true;
    if (flag_of(step, "strip_left", true)) add("strip_left");
    if (flag_of(step, "strip_right", true)) add("strip_right");
    return true;
  }
  Result<bool> take_rules(const json& step, GgufKeys& keys) {
    if (std::exchange(has_rules_, true)) return false;
    const auto rules = from_base64(text_of(step, "precompiled_charsmap"));
    if (!rules || rules->empty()) return bad_unigram(name_, "its precompiled_charsmap is no text in base64");
    keys.bytes("tokenizer.ggml.precompiled_charsmap", *rules);
    add("charsmap");
    return true;
  }
  // Of expressions those that conversions write.
  bool take_replace(const json& step) {
    const auto content = step.find("content");
    if (content == step.end() || !content->is_string()) return false;
    const std::string_view to = text_of(step, "content");
    const std::string_view literal = pattern_of(step, "String"), regex = pattern_of(step, "Regex");
    if (!literal.empty()) {
      add("replace", literal, to);
      replaces_space_ = replaces_space_ || (literal == " " && to == kHfSpace);
      return true;
    }
    if (regex == " {2,}") add("replace_runs", "", to);
    else if (regex == R"(\A +| +\z)") add("trim", "", to);
    else if (regex == R"(\A)" + std::string(kHfSpace)) add("replace_first", kHfSpace, to);
    else return false;
    return true;
  }

  bool take_pre_tokenizer(const json& step) {
    const std::string_view type = text_of(step, "type");
    if (type == "WhitespaceSplit" && words_.empty() && !metaspace_) {
      words_.emplace_back("drop_whitespace");
      return true;
    }
    if (type != "Metaspace" || metaspace_ || text_of(step, "replacement") != kHfSpace) return false;
    metaspace_ = true;
    const bool first = text_of(step, "prepend_scheme") == "first", never = text_of(step, "prepend_scheme") == "never";
    const bool always = text_of(step, "prepend_scheme") == "always" || !step.contains("prepend_scheme");
    if (!first && !never && !always) return false;
    if (step.contains("add_prefix_space") && flag_of(step, "add_prefix_space", never) == never) return false;
    if (first && !words_.empty()) return false;  // which word is the first one hangs on what was dropped
    words_.emplace_back("replace_spaces");
    if (!never) words_.emplace_back(first ? "prefix_first" : "prefix_each");
    if (flag_of(step, "split", true)) words_.emplace_back("cut_at_spaces");
    return true;
  }

  const json& t_;
  const std::string& name_;
  std::vector<std::string> steps_, words_;
  bool has_rules_ = false, replaces_space_ = false, metaspace_ = false;
};

}  // namespace

bool is_hf_unigram(const json& model) {
  const std::string_view type = text_of(model, "type");
  return type == "Unigram" || (type.empty() && model.contains("vocab") && model.at("vocab").is_array());
}

Result<void> read_hf_unigram_steps(const json& tokenizer, const std::string& name, GgufKeys& keys) {
  return UnigramSteps(tokenizer, name).read(keys);
}

Result<std::vector<std::string>> read_hf_unigram_vocab(const json& model, const std::string& name, uint64_t vocab_size,
                                                       GgufKeys& keys) {
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_array() || vocab->empty()) return bad_unigram(name, "its model has no vocab");
  if (vocab->size() > vocab_size)
    return bad_unigram(name, "its model has " + std::to_string(vocab->size()) + " tokens, and the embedding " +
                                 std::to_string(vocab_size) + " rows");
  std::vector<std::string> texts;
  std::vector<double> scores;
  for (const json& one : *vocab) {
    const bool fits = one.is_array() && one.size() == 2 && one[0].is_string() && one[1].is_number() &&
                      std::isfinite(one[1].get<double>());
    if (!fits) return bad_unigram(name, "the token " + std::to_string(texts.size()) + " is no text and its score");
    texts.push_back(one[0].get<std::string>());
    scores.push_back(one[1].get<double>());
  }
  keys.f64s("tokenizer.ggml.scores", scores);
  keys.boolean("runahead.tokenizer.byte_fallback", flag_of(model, "byte_fallback", false));
  const auto unknown = model.find("unk_id");
  if (unknown == model.end() || unknown->is_null()) return texts;
  if (!unknown->is_number_unsigned() || unknown->get<uint64_t>() >= texts.size())
    return bad_unigram(name, "its unk_id is no token");
  keys.u32("tokenizer.ggml.unknown_token_id", unknown->get<uint64_t>());
  return texts;
}

}  // namespace runahead
