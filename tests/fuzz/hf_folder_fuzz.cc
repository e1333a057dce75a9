// The files of a folder of Hugging Face's with any bytes: the first one says which file it is. Each is refused with an error, or
// every tensor lies inside it, and what becomes of it is a GGUF whose readers all end well.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights/hf_config.h"
#include "model/weights/hf_object.h"
#include "model/weights/hf_tensors.h"
#include "model/weights/hf_tokenizer.h"
#include "model/weights/safetensors.h"

using namespace runahead;

namespace {

void check_error(const Error& error) { RUNAHEAD_CHECK(!error.message.empty(), "an error says what is wrong"); }

// As tensors of a model that does all that is done to them.
void read_weights(std::span<const std::byte> bytes) {
  static constexpr HfFamily kFamily{.model_type = "fuzz", .architecture = "falcon", .adds_one_to_gains = true};
  const auto tensors = read_safetensors(bytes, "fuzz");
  if (!tensors) return check_error(tensors.error());
  for (const SafeTensor& tensor : *tensors)
    RUNAHEAD_CHECK(
        tensor.bytes.data() >= bytes.data() && tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size(),
        "a tensor lies inside the file");
  HfModel model{
      .family = &kFamily, .num_layers = 1, .num_heads = 2, .num_kv_heads = 1, .head_dim = 2, .grouped_qkv = true};
  GgufMemory memory;
  const auto infos = hf_tensors(model, *tensors, "fuzz", memory);
  if (!infos) return check_error(infos.error());
  for (const TensorInfo& info : *infos) {
    std::vector<float> values(static_cast<size_t>(info.elements()));
    dequantize(info.type, info.bytes, values);
  }
}

Result<Gguf> gguf_of(const GgufKeys& keys, std::vector<std::byte>& bytes) {
  bytes = keys.build();
  return Gguf::parse(bytes, "fuzz");
}

void read_config(const nlohmann::json& config) {
  GgufKeys keys;
  const auto model = read_hf_config(config, "config.json", keys);
  if (!model) return check_error(model.error());
  std::vector<std::byte> bytes;
  const auto file = gguf_of(keys, bytes);
  if (file) static_cast<void>(read_model_config(*file));
}

void read_tokenizer(const nlohmann::json& tokenizer) {
  GgufKeys keys;
  HfTokenizerFiles files{.folder = "fuzz",
                         .tokenizer = &tokenizer,
                         .tokenizer_config = &tokenizer,
                         .generation_config = &tokenizer,
                         .config = &tokenizer};
  files.vocab_size = 300;
  const auto read = read_hf_tokenizer(files, keys);
  if (!read) return check_error(read.error());
  std::vector<std::byte> bytes;
  const auto file = gguf_of(keys, bytes);
  if (!file) return check_error(file.error());
  const auto loaded = Tokenizer::load(*file);
  if (!loaded) return check_error(loaded.error());
  for (const char* text : {"the one and\n  only <|im_end|> 12 caf\xC3\xA9", "\xFF\x80", ""})
    if (const auto ids = loaded->encode(text, true)) static_cast<void>(loaded->decode(*ids, true));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  if (data[0] == 's') {
    read_weights(bytes);
    return 0;
  }
  const auto json = parse_hf_json(bytes, "fuzz.json");
  if (!json) check_error(json.error());
  else if (data[0] == 'c') read_config(json->value());
  else read_tokenizer(json->value());
  return 0;
}
