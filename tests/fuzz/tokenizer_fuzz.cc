// Any text comes back from its tokens, byte for byte, with every pre-tokenizer, whether decoded at once or one by one.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

using namespace runahead;

namespace {

std::vector<Tokenizer> make_tokenizers() {
  std::vector<Tokenizer> tokenizers;
  for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"}) {
    const test::TinyVocabulary vocabulary = test::tiny_vocabulary();
    test::GgufBuilder file;
    file.str("tokenizer.ggml.model", "gpt2");
    file.str("tokenizer.ggml.pre", pre);
    file.strings("tokenizer.ggml.tokens", vocabulary.tokens);
    file.i32s("tokenizer.ggml.token_type", vocabulary.types);
    file.strings("tokenizer.ggml.merges", vocabulary.merges);
    const std::vector<std::byte> bytes = file.build();
    tokenizers.push_back(Tokenizer::load(Gguf::parse(bytes, "fuzz.gguf").value()).value());
  }
  return tokenizers;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Tokenizer> kTokenizers = make_tokenizers();
  if (size == 0) return 0;
  const Tokenizer& tokenizer = kTokenizers[(data[0] >> 1) % kTokenizers.size()];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto ids = tokenizer.encode(text, (data[0] & 1) != 0);
  RUNAHEAD_CHECK(ids.has_value(), "every byte has a token here");
  RUNAHEAD_CHECK(tokenizer.decode(*ids, true) == text, "the text comes back");
  std::string bytes;
  for (const TokenId id : *ids) bytes += tokenizer.token_bytes(id);
  RUNAHEAD_CHECK(bytes == text, "and token by token");
  return 0;
}
