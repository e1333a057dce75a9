// A GGUF file of any bytes: it is refused with an error, or every tensor lies inside it and every reader of it ends
// well.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights/gguf.h"

using namespace runahead;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = Gguf::parse(bytes, "fuzz.gguf");
  if (!file) {
    RUNAHEAD_CHECK(!file.error().message.empty(), "an error says what is wrong");
    return 0;
  }
  for (const TensorInfo& info : file->tensors()) {
    RUNAHEAD_CHECK(info.bytes.data() >= bytes.data() && info.bytes.data() + info.bytes.size() <= bytes.data() + size,
                   "a tensor lies inside the file");
    const QuantFormat& format = quant_format(info.type);
    std::vector<float> block(static_cast<size_t>(format.block_len));
    dequantize(info.type, info.bytes.first(static_cast<size_t>(format.block_bytes)), block);
  }
  static_cast<void>(read_model_config(*file));
  if (const auto tokenizer = Tokenizer::load(*file)) {
    for (const char* text : {"the one and\n  only <|im_end|> 12 caf\xC3\xA9", "\xFF\x80", ""}) {
      const auto ids = tokenizer->encode(text, true);
      const bool is_exact = file->str("tokenizer.ggml.model") == "gpt2";
      const std::string back = ids ? tokenizer->decode(*ids, true) : "";
      if (ids && is_exact) RUNAHEAD_CHECK(back == text, "the text comes back");
    }
  }
  return 0;
}
