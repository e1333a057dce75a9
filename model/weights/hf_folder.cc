#include "model/weights/hf_folder.h"

#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "base/limits.h"
#include "model/weights/gguf_parser.h"
#include "model/weights/hf_config.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_tensors.h"
#include "model/weights/hf_tokenizer.h"
#include "model/weights/safetensors.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kWhole = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Names that stay inside the folder.
bool is_shard_name(std::string_view name) {
  return name.ends_with(".safetensors") && name.size() <= 255 && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

}  // namespace

class HfFolder {
 public:
  explicit HfFolder(const std::filesystem::path& folder) : folder_(folder) {
    gguf_.name_ = folder.string();
    gguf_.memory_ = std::make_unique<GgufMemory>();
  }

  Result<Gguf> open(std::vector<KvOverride> overrides) {
    const ParsedJson config = TRY(read_json("config.json"));
    GgufKeys keys;
    const HfModel model = TRY(read_hf_config(config.value(), path_of("config.json"), keys));
    TRY(read_weights());
    gguf_.tensors_ = TRY(hf_tensors(model, tensors_, gguf_.name_, *gguf_.memory_));
    for (size_t i = 0; i < gguf_.tensors_.size(); ++i) gguf_.tensor_index_.emplace(gguf_.tensors_[i].name, i);
    if (!model.tied && !gguf_.has_tensor("output.weight"))
      return bad("lm_head.weight is missing, and config.json does not say tie_word_embeddings");
    for (const auto& [tensor, there] : model.first_layer)
      if (gguf_.has_tensor(tensor) != there)
        return bad("config.json does not fit the weights: it says that tensors as " + runahead::quoted(tensor) +
                   (there ? " are there" : " are not there"));
    TRY(read_tokenizer(config.value(), TRY(gguf_.matrix("token_embd.weight")).rows, keys));
    TRY(take_keys(keys));
    TRY(gguf_.set_overrides(std::move(overrides)));
    return std::move(gguf_);
  }

 private:
  std::string path_of(const std::string& file) const { return (folder_ / file).string(); }
  std::unexpected<Error> bad(const std::string& what) const {
    return fail(ErrorCode::kInvalidModel, gguf_.name_ + ": " + what + "; download the model again");
  }

  Result<std::span<const std::byte>> map(const std::string& file) {
    MappedFile mapped = TRY(MappedFile::open(folder_ / file));
    gguf_.parts_.push_back(mapped.bytes());
    gguf_.files_.push_back(std::move(mapped));
    return gguf_.parts_.back();
  }
  Result<ParsedJson> read_json(const std::string& file) { return parse_hf_json(TRY(map(file)), path_of(file)); }

  // The keys, through the checks of every GGUF; as a part of it, so that another reading of the same files is another model.
  Result<void> take_keys(const GgufKeys& keys) {
    gguf_.parts_.emplace_back(gguf_.memory_->bytes.emplace_back(keys.build()));
    return GgufParser(gguf_, gguf_.parts_.back(), gguf_.name_).run(0);
  }

  Result<void> read_weights() {
    if (is_there(folder_ / kWhole)) return read_shard(kWhole, nullptr);
    if (!is_there(folder_ / kIndex)) {
      const bool pickled =
          is_there(folder_ / "pytorch_model.bin") || is_there(folder_ / "pytorch_model.bin.index.json");
      return bad(std::string("it has neither ") + kWhole + " nor " + kIndex +
                 (pickled ? ", only PyTorch's pickled weights, which are not read" : ""));
    }
    const ParsedJson index = TRY(read_json(kIndex));
    const auto map = index->find("weight_map");
    if (map == index->end() || !map->is_object()) return bad(std::string(kIndex) + " has no weight_map");
    std::map<std::string, std::set<std::string>> shards;
    for (const auto& [tensor, file] : map->items()) {
      if (!file.is_string() || !is_shard_name(file.get_ref<const std::string&>()))
        return bad(std::string(kIndex) + " says that " + runahead::quoted(tensor) + " is in no file of this folder");
      shards[file.get<std::string>()].insert(tensor);
    }
    if (shards.size() > limits::kHfShardsMax) return bad(std::string(kIndex) + " names too many files");
    for (const auto& [file, names] : shards) TRY(read_shard(file, &names));
    return {};
  }

  // names: what the index says that it holds, and nothing else.
  Result<void> read_shard(const std::string& file, const std::set<std::string>* names) {
    std::vector<SafeTensor> found = TRY(read_safetensors(TRY(map(file)), path_of(file)));
    for (SafeTensor& tensor : found) {
      if (names != nullptr && !names->contains(tensor.name))
        return bad(file + " holds the tensor " + runahead::quoted(tensor.name) + ", which " + kIndex + " does not say");
      tensors_.push_back(std::move(tensor));
    }
    if (names != nullptr && names->size() != found.size())
      return bad(file + " has " + std::to_string(found.size()) + " tensors of the " + std::to_string(names->size()) +
                 " that " + kIndex + " says");
    return {};
  }

  Result<void> read_tokenizer(const json& config, int64_t vocab_size, GgufKeys& keys) {
    constexpr const char* kTokenizer = "tokenizer.json";
    if (!is_there(folder_ / kTokenizer)) {
      if (is_there(folder_ / "tokenizer.model"))
        return bad("its tokenizer is tokenizer.model alone; transformers' AutoTokenizer writes tokenizer.json from it");
      return {};  // as a GGUF without one: token ids alone
    }
    const ParsedJson tokenizer = TRY(read_json(kTokenizer));
    HfTokenizerFiles files{.folder = gguf_.name_, .tokenizer = &tokenizer.value(), .config = &config};
    files.vocab_size = static_cast<uint64_t>(vocab_size);
    ParsedJson tokenizer_config, generation_config;
    if (is_there(folder_ / "tokenizer_config.json")) {
      tokenizer_config = TRY(read_json("tokenizer_config.json"));
      files.tokenizer_config = &tokenizer_config.value();
    }
    if (is_there(folder_ / "generation_config.json")) {
      generation_config = TRY(read_json("generation_config.json"));
      files.generation_config = &generation_config.value();
    }
    constexpr const char* kTemplate = "chat_template.jinja";
    if (is_there(folder_ / kTemplate)) {
      const auto text = TRY(map(kTemplate));
      if (text.size() > limits::kTemplateBytesMax) return bad(std::string(kTemplate) + " is too large");
      files.chat_template.assign(reinterpret_cast<const char*>(text.data()), text.size());
    }
    return read_hf_tokenizer(files, keys);
  }

  std::filesystem::path folder_;
  Gguf gguf_;
  std::vector<SafeTensor> tensors_;
};

Result<Gguf> open_hf_folder(const std::filesystem::path& folder, std::vector<KvOverride> overrides) {
  return HfFolder(folder).open(std::move(overrides));
}

bool is_hf_folder(const std::filesystem::path& folder) { return is_there(folder / "config.json"); }

}  // namespace runahead
