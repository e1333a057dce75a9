#include "model/weights/hf_added_tokens.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "model/weights/gguf.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_steps.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kDecoder = "added_tokens_decoder";
constexpr const char* kNamed[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

class Added {
 public:
  explicit Added(const HfAddedTokenFiles& files)
      : files_(files), name_(files.folder + "/tokenizer.json"), config_name_(files.folder + "/tokenizer_config.json") {}

  Result<std::vector<HfAddedToken>> run() {
    next_ = files_.vocabulary->size();
    TRY(read_list());
    if (files_.tokenizer_config != nullptr) {
      read_names();
      TRY(read_decoder());
      for (const char* name : kNamed) add_named(name);
      for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) add_all_of(list);
    }
    std::vector<HfAddedToken> out;
    for (const auto& [text, token] : tokens_) out.push_back(token);
    std::ranges::sort(out, {}, &HfAddedToken::id);
    return out;
  }

 private:
  static std::unexpected<Error> bad(const std::string& name, const std::string& what) {
    return fail(ErrorCode::kInvalidModel, name + ": " + what + "; download the model again");
  }

  // With the flags that AddedToken has if they are absent.
  static Result<HfAddedToken> token_of(const json& value, const std::string& name, const char* path) {
    if (!value.is_object()) return bad(name, "an added token is no object");
    const HfObject object(value, name, path);
    HfAddedToken token;
    token.text = TRY(object.text_or("content", ""));
    token.special = TRY(object.flag_or("special", false));
    token.lstrip = TRY(object.flag_or("lstrip", false));
    token.rstrip = TRY(object.flag_or("rstrip", false));
    token.normalized = TRY(object.flag_or("normalized", !token.special));
    token.single_word = TRY(object.flag_or("single_word", false));
    return token;
  }

  Result<void> read_list() {
    const auto list = files_.tokenizer->find("added_tokens");
    if (list == files_.tokenizer->end() || list->is_null()) return {};
    if (!list->is_array()) return bad(name_, "its added_tokens are no list");
    std::set<uint64_t> ids;
    for (const json& one : *list) {
      HfAddedToken token = TRY(token_of(one, name_, "added_tokens."));
      const auto id = one.find("id");
      if (id == one.end() || !id->is_number_unsigned() || token.text.empty())
        return bad(name_, "an added token has no id or no content");
      token.id = id->get<uint64_t>();
      if (!ids.insert(token.id).second) return bad(name_, "two tokens have the id " + std::to_string(token.id));
      put(std::move(token));
    }
    return {};
  }

  void put(HfAddedToken token) {
    next_ = std::max(next_, token.id < UINT64_MAX ? token.id + 1 : token.id);
    tokens_[token.text] = std::move(token);
  }

  // "<s>", or {"content": "<s>", ..}.
  static std::string text_in(const json& value) {
    return value.is_string() ? value.get<std::string>() : std::string(text_of(value, "content"));
  }
  void read_names() {
    for (const char* name : kNamed)
      if (const auto found = files_.tokenizer_config->find(name); found != files_.tokenizer_config->end())
        named_.insert(text_in(*found));
  }

  Result<void> read_decoder() {
    const auto decoder = files_.tokenizer_config->find(kDecoder);
    if (decoder == files_.tokenizer_config->end() || decoder->is_null()) return {};
    if (!decoder->is_object()) return bad(config_name_, std::string("its ") + kDecoder + " is no object");
    std::map<uint64_t, HfAddedToken> entries;  // transformers adds them in the order of their ids
    for (const auto& [key, value] : decoder->items()) {
      uint64_t id = 0;
      const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
      if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size())
        return bad(config_name_, std::string("its ") + kDecoder + " has " + runahead::quoted(key) + ", which is no id");
      HfAddedToken token = TRY(token_of(value, config_name_, "added_tokens_decoder."));
      token.id = id;
      if (!entries.emplace(id, std::move(token)).second)
        return bad(config_name_, std::string("its ") + kDecoder + " has " + std::to_string(id) + " twice");
    }
    for (auto& [id, token] : entries) TRY(take(std::move(token)));
    return {};
  }

  std::optional<uint64_t> id_of(const std::string& text) const {
    if (const auto found = tokens_.find(text); found != tokens_.end()) return found->second.id;
    const auto found = files_.vocabulary->find(text);
    return found == files_.vocabulary->end() ? std::nullopt : std::optional(found->second);
  }

  Result<void> take(HfAddedToken token) {
    if (token.text.empty()) return {};
    const uint64_t id = id_of(token.text).value_or(next_);
    if (id != token.id && (id < files_.vocab_size || token.id < files_.vocab_size))
      return bad(config_name_, std::string(kDecoder) + " says that " + runahead::quoted(token.text) + " is " +
                                   std::to_string(token.id) + ", and by tokenizer.json it is " + std::to_string(id));
    const auto found = tokens_.find(token.text);
    if (found != tokens_.end() && found->second == token) return {};
    token.special = token.special || named_.contains(token.text);
    put(std::move(token));
    return {};
  }

  void add_named(const char* name) {
    const auto found = files_.tokenizer_config->find(name);
    if (found == files_.tokenizer_config->end()) return;
    // Begin and end are asked for by their ids: that they are nowhere is an error of its own (hf_tokenizer.cc).
    const bool needed = std::string_view(name) == "bos_token" || std::string_view(name) == "eos_token";
    if (!needed || files_.vocabulary->contains(text_in(*found))) add_special(*found);
  }
  void add_all_of(const char* list) {
    const auto found = files_.tokenizer_config->find(list);
    if (found == files_.tokenizer_config->end() || !found->is_structured()) return;
    for (const json& one : *found) add_special(one);
  }
  void add_special(const json& value) {
    HfAddedToken token{.text = text_in(value), .special = true};
    if (token.text.empty() || tokens_.contains(token.text)) return;
    token.lstrip = flag_of(value, "lstrip", false), token.rstrip = flag_of(value, "rstrip", false);
    token.normalized = flag_of(value, "normalized", false), token.single_word = flag_of(value, "single_word", false);
    token.id = id_of(token.text).value_or(next_);
    put(std::move(token));
  }

  const HfAddedTokenFiles& files_;
  std::string name_, config_name_;
  std::map<std::string, HfAddedToken> tokens_;  // by text
  std::set<std::string> named_;
  uint64_t next_ = 0;  // the id of a new one
};

}  // namespace

Result<std::vector<HfAddedToken>> read_hf_added_tokens(const HfAddedTokenFiles& files) { return Added(files).run(); }

}  // namespace runahead
