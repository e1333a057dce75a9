#include "model/weights/file_kind.h"

#include <algorithm>
#include <string>

namespace runahead {
namespace {

// From a file of anybody's: what is not printable ASCII as '?', at most 80 bytes.
std::string in_quotes(std::string_view name) {
  constexpr size_t kBytesMax = 80;
  std::string text = "'";
  for (const char c : name.substr(0, kBytesMax)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (name.size() > kBytesMax ? "...'" : "'");
}

// The value of a text key; empty if there is none. A file that is no model may hold anything.
std::string_view string_key(const Gguf& file, std::string_view key) {
  const Result<std::string_view> text = file.has(key) ? file.str(key) : Result<std::string_view>("");
  return text ? *text : std::string_view();
}

struct OtherKind {
  std::string_view names, is;  // names separated by spaces, with one before and after
};
constexpr OtherKind kOtherKinds[] = {
    {" controlvector ", "a control vector, which steers a model, not a model; give the model itself"},
    {" imatrix ", "an importance matrix, made for quantizing, not a model; give the model itself"},
    {" clip mmproj ",
     "the image or sound encoder of a multimodal model (mmproj), not a language model; give the language model's file"},
    {" bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 neo-bert modern-bert eurobert t5encoder "
     "gemma-embedding "
     "llama-embed ",
     "an embedding model, which writes no text; choose a model that generates"},
    {" flux sd1 sd2 sd3 sdxl ltxv wan hyvid lumina2 aura hidream cosmos qwen_image pixart z_image ",
     "a model that makes images or video, not text; choose a language model"},
    {" whisper wavtokenizer-dec ", "a model of sound, not of text; choose a language model"},
    {" eagle eagle2 eagle3 medusa dflash ", "a draft head, which only runs beside its model; give the model itself"},
};

std::unexpected<Error> is_a(const std::string& what) { return fail(ErrorCode::kUnsupported, "the file is " + what); }

std::string base_model(const Gguf& file) {
  for (const char* key : {"general.base_model.0.name", "general.base_model.0.repo_url", "general.basename"})
    if (const std::string_view name = string_key(file, key); !name.empty()) return " for " + in_quotes(name);
  return "";
}

// A model that says so is asked for vectors: its layers may look the same.
bool pools(const Gguf& file, std::string_view architecture) {
  const std::string key = std::string(architecture) + ".pooling_type";
  const Result<uint64_t> type = file.u64_or(key, 0);
  return type && *type != 0;
}

}  // namespace

Result<void> refuse_other_kinds(const Gguf& file) {
  const std::string_view type = string_key(file, "general.type"),
                         architecture = string_key(file, "general.architecture");
  if (type == "adapter" || file.has("adapter.type"))
    return is_a("a LoRA adapter" + base_model(file) +
                ", not a model; merge it into its base model (llama.cpp's llama-export-lora), or give the base model");
  for (const OtherKind& other : kOtherKinds)
    for (const std::string_view name : {type, architecture})
      if (!name.empty() && other.names.find(" " + std::string(name) + " ") != std::string_view::npos)
        return is_a(std::string(other.is));
  if (pools(file, architecture))
    return is_a("an embedding model (" + std::string(architecture) +
                ".pooling_type), which writes no text; choose a model that generates");
  if (architecture.empty())
    return is_a(
        "GGUF, but does not say of which architecture its model is (general.architecture); choose another file");
  if (architecture == "llama" && file.tensors().empty())
    return is_a("a vocabulary without weights; give the model's own file (`runahead tokenize` takes this one)");
  return {};
}

}  // namespace runahead
