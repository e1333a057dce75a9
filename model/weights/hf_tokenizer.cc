#include "model/weights/hf_tokenizer.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/limits.h"
#include "model/weights/gguf.h"
#include "model/weights/hf_added_tokens.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_steps.h"

namespace runahead {
namespace {

using nlohmann::json;

// GGUF's numbers of tokenizer.ggml.token_type.
enum TokenType : int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

class Reader {
 public:
  Reader(const HfTokenizerFiles& files, GgufKeys& keys)
      : files_(files), keys_(keys), name_(files.folder + "/tokenizer.json"), json_(*files.tokenizer) {}

  Result<void> run() {
    TRY(read_hf_text_steps(json_, name_, keys_));
    TRY(read_vocabulary());
    TRY(read_added_tokens());
    keys_.strings("tokenizer.ggml.tokens", tokens_);
    keys_.i32s("tokenizer.ggml.token_type", types_);
    keys_.i32s("runahead.tokenizer.added", added_);
    TRY(read_special_ids());
    TRY(read_post_processor());
    TRY(read_ends());
    return read_templates();
  }

 private:
  std::unexpected<Error> bad(const std::string& what) const {
    return fail(ErrorCode::kInvalidModel, name_ + ": " + what + "; download the model again");
  }
  std::unexpected<Error> unsupported(const std::string& what) const {
    return fail(ErrorCode::kUnsupported,
                name_ + ": " + what + " is not supported; choose another model, or its GGUF file");
  }

  // An id of the vocabulary; nothing for what is no id at all.
  static std::optional<uint64_t> id_of(const json& value) {
    if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<int64_t>() < 0)) return std::nullopt;
    return value.get<uint64_t>();
  }

  Result<void> read_vocabulary() {
    const auto& model = json_.at("model");  // read_hf_text_steps found it
    if (is_hf_unigram(model)) return read_pieces(model);
    const auto vocab = model.find("vocab");
    if (vocab == model.end() || !vocab->is_object()) return bad("its model has no vocab");
    tokens_.resize(files_.vocab_size);
    types_.assign(files_.vocab_size, kUnused);
    for (const auto& [text, value] : vocab->items()) {
      const std::optional<uint64_t> id = id_of(value);
      if (!id || *id >= files_.vocab_size)
        return bad("the token " + runahead::quoted(text) + " has no id within the embedding's " +
                   std::to_string(files_.vocab_size) + " rows");
      if (types_[*id] != kUnused) return bad("two tokens have the id " + std::to_string(*id));
      set(*id, text, kNormal);
    }
    name_unused_rows();
    return {};
  }

  Result<void> read_pieces(const json& model) {
    const std::vector<std::string> texts = TRY(read_hf_unigram_vocab(model, name_, files_.vocab_size, keys_));
    tokens_.resize(files_.vocab_size);
    types_.assign(files_.vocab_size, kUnused);
    for (size_t id = 0; id < texts.size(); ++id) {
      if (ids_.contains(texts[id])) return bad("two tokens are " + runahead::quoted(texts[id]));
      set(id, texts[id], kNormal);
    }
    name_unused_rows();
    return {};
  }

  // A text that no text becomes, whatever the tokenizer (a space is never in a token).
  void name_unused_rows() {
    for (size_t id = 0; id < tokens_.size(); ++id)
      if (types_[id] == kUnused) tokens_[id] = "[PAD " + std::to_string(id) + "]";
  }

  void set(uint64_t id, const std::string& text, TokenType type) {
    tokens_[id] = text, types_[id] = type;
    ids_[text] = id;
  }

  Result<void> read_added_tokens() {
    const HfAddedTokenFiles files{.folder = files_.folder,
                                  .tokenizer = &json_,
                                  .tokenizer_config = files_.tokenizer_config,
                                  .vocabulary = &ids_,
                                  .vocab_size = files_.vocab_size};
    for (const HfAddedToken& token : TRY(read_hf_added_tokens(files))) {
      if (token.id >= files_.vocab_size)
        continue;  // the model has no row for it, so it is never asked or said (Gemma 3's image)
      const int32_t flags = (token.lstrip ? kHfLstrip : 0) | (token.rstrip ? kHfRstrip : 0) |
                            (token.single_word ? kHfSingleWord : 0) | (token.normalized ? kHfNormalized : 0) |
                            (types_[token.id] != kUnused ? kHfOfModel : 0);
      added_.insert(added_.end(), {static_cast<int32_t>(token.id), flags});
      if (types_[token.id] != kUnused && tokens_[token.id] != token.text)
        return bad("two tokens have the id " + std::to_string(token.id));
      set(token.id, token.text, token.special ? kControl : kUserDefined);
    }
    return {};
  }

  // "<s>", or {"content": "<s>", ..}.
  std::optional<std::string> token_text(const char* name) const {
    if (files_.tokenizer_config == nullptr) return std::nullopt;
    auto found = files_.tokenizer_config->find(name);
    if (found == files_.tokenizer_config->end()) return std::nullopt;
    const json* text = &*found;
    if (text->is_object() && text->contains("content")) text = &text->at("content");
    return text->is_string() ? std::optional(text->get<std::string>()) : std::nullopt;
  }

  Result<void> read_special_ids() {
    const bool unigram = is_hf_unigram(json_.at("model"));  // whose model says which token is the unknown one
    for (const auto& [name, key] : {std::pair("bos", "bos"), {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}}) {
      if (unigram && std::string_view(name) == "unk") continue;
      std::optional<uint64_t> id;
      if (const auto text = token_text((std::string(name) + "_token").c_str())) {
        const auto found = ids_.find(*text);
        const bool needed = std::string_view(name) == "bos" || std::string_view(name) == "eos";
        if (found == ids_.end() && !needed) continue;
        if (found == ids_.end())
          return fail(ErrorCode::kInvalidModel, files_.folder + "/tokenizer_config.json: " + name + "_token is " +
                                                    runahead::quoted(*text) +
                                                    ", which is no token; download the model again");
        id = found->second;
      } else if (files_.tokenizer_config == nullptr && files_.config != nullptr) {
        const auto found = files_.config->find(std::string(name) + "_token_id");
        if (found != files_.config->end()) id = id_of(*found);
      }
      if (!id || *id >= files_.vocab_size) continue;
      keys_.u32("tokenizer.ggml." + std::string(key) + "_token_id", *id);
      if (std::string_view(name) == "bos") bos_ = id;
      if (std::string_view(name) == "eos") eos_ = id;
    }
    return {};
  }

  // Which special tokens the template of one text has before (`bos`) and behind it.
  Result<void> read_template(const json& processor, bool& bos, bool& eos) const {
    const auto single = processor.find("single");
    if (single == processor.end() || !single->is_array()) return unsupported("this TemplateProcessing");
    bool behind = false;
    for (const json& piece : *single) {
      if (piece.is_object() && piece.contains("Sequence")) {
        if (behind) return unsupported("a TemplateProcessing that repeats the text");
        behind = true;
        continue;
      }
      const json* special = piece.is_object() && piece.contains("SpecialToken") ? &piece.at("SpecialToken") : nullptr;
      if (special == nullptr || !special->is_object() || !special->contains("id") || !special->at("id").is_string())
        return unsupported("this TemplateProcessing");
      const auto id = ids_.find(special->at("id").get<std::string>());
      const std::optional<uint64_t>& wanted = behind ? eos_ : bos_;
      bool& there = behind ? eos : bos;
      if (id == ids_.end() || !wanted || id->second != *wanted || there)
        return unsupported("a TemplateProcessing with other tokens than begin and end of text");
      there = true;
    }
    return {};
  }

  Result<void> read_post_processor() {
    bool bos = false, eos = false;
    std::vector<const json*> steps;
    if (const auto found = json_.find("post_processor"); found != json_.end() && !found->is_null()) steps = {&*found};
    for (size_t i = 0; i < steps.size(); ++i) {
      if (!steps[i]->is_object()) return unsupported("this post_processor");
      const std::string type =
          steps[i]->contains("type") && steps[i]->at("type").is_string() ? steps[i]->at("type").get<std::string>() : "";
      if (type == "Sequence" && i == 0 && steps[i]->contains("processors") && steps[i]->at("processors").is_array()) {
        for (const json& one : steps[0]->at("processors")) steps.push_back(&one);
      } else if (type == "TemplateProcessing") {
        TRY(read_template(*steps[i], bos, eos));
      } else if (type != "ByteLevel") {  // which moves offsets, no tokens
        return unsupported("a post_processor of the type " + runahead::quoted(type));
      }
    }
    static const json kNone = json::object();
    const HfObject config(files_.tokenizer_config == nullptr ? kNone : *files_.tokenizer_config,
                          files_.folder + "/tokenizer_config.json");
    keys_.boolean("tokenizer.ggml.add_bos_token", TRY(config.flag_or("add_bos_token", bos)));
    keys_.boolean("tokenizer.ggml.add_eos_token", TRY(config.flag_or("add_eos_token", eos)));
    return {};
  }

  // One id or a list of them: generation_config.json's, else config.json's.
  Result<void> read_ends() {
    std::set<int32_t> ends;
    for (const auto& [file, name] :
         {std::pair(files_.generation_config, "/generation_config.json"), {files_.config, "/config.json"}}) {
      const auto found = file == nullptr ? json::const_iterator() : file->find("eos_token_id");
      if (file == nullptr || found == file->end() || found->is_null()) continue;
      for (const json& one : found->is_array() ? *found : json::array({*found})) {
        const std::optional<uint64_t> id = id_of(one);
        if (!id || *id >= files_.vocab_size)
          return fail(ErrorCode::kInvalidModel,
                      files_.folder + name + ": eos_token_id is outside the vocabulary; download the model again");
        ends.insert(static_cast<int32_t>(*id));
      }
      break;
    }
    if (!ends.empty()) keys_.i32s("runahead.tokenizer.ends", {ends.begin(), ends.end()});
    return {};
  }

  Result<void> read_templates() {
    constexpr const char* kKey = "tokenizer.chat_template";
    if (!files_.chat_template.empty()) {
      keys_.str(kKey, files_.chat_template);
      return {};
    }
    const auto found =
        files_.tokenizer_config == nullptr ? json::const_iterator() : files_.tokenizer_config->find("chat_template");
    if (files_.tokenizer_config == nullptr || found == files_.tokenizer_config->end() || found->is_null()) return {};
    if (found->is_string()) {
      keys_.str(kKey, found->get_ref<const std::string&>());
      return {};
    }
    std::set<std::string> names;
    for (const json& one : *found) {
      const bool fits = one.is_object() && one.contains("name") && one.at("name").is_string() &&
                        one.contains("template") && one.at("template").is_string();
      if (!found->is_array() || !fits || !names.insert(one.at("name").get<std::string>()).second)
        return fail(ErrorCode::kInvalidModel, files_.folder +
                                                  "/tokenizer_config.json: chat_template is neither a text nor a "
                                                  "list of names and templates; download the model again");
      const std::string name = one.at("name").get<std::string>();
      keys_.str(name == "default" ? std::string(kKey) : kKey + ("." + name),
                one.at("template").get_ref<const std::string&>());
    }
    return {};
  }

  const HfTokenizerFiles& files_;
  GgufKeys& keys_;
  std::string name_;
  const json& json_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> types_, added_;
  std::unordered_map<std::string, uint64_t> ids_;
  std::optional<uint64_t> bos_, eos_;
};

}  // namespace

Result<void> read_hf_tokenizer(const HfTokenizerFiles& files, GgufKeys& keys) {
  if (files.vocab_size > static_cast<uint64_t>(limits::kVocabMax))
    return fail(ErrorCode::kInvalidModel, files.folder + ": the embedding has more rows than a limit allows");
  return Reader(files, keys).run();
}

}  // namespace runahead
