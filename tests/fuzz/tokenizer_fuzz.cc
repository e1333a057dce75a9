// Any text comes back from its tokens, whether decoded at once or one by one: byte for byte with every pre-tokenizer of
// byte-level BPE, with U+2581 as a space from SentencePiece's pairs. Unigram, which normalises, takes any text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

using namespace runahead;

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";

struct Kind {
  std::string model;
  Tokenizer tokenizer;
};

Tokenizer load(const test::GgufBuilder& file) {
  const std::vector<std::byte> bytes = file.build();
  return Tokenizer::load(Gguf::parse(bytes, "fuzz.gguf").value()).value();
}

Tokenizer byte_level(const char* pre) {
  const test::TinyVocabulary vocabulary = test::tiny_vocabulary();
  test::GgufBuilder file;
  file.str("tokenizer.ggml.model", "gpt2");
  file.str("tokenizer.ggml.pre", pre);
  file.strings("tokenizer.ggml.tokens", vocabulary.tokens);
  file.i32s("tokenizer.ggml.token_type", vocabulary.types);
  file.strings("tokenizer.ggml.merges", vocabulary.merges);
  return load(file);
}

Tokenizer sentence_pieces(const char* model, bool adds_space) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<own>", "  "};
  std::vector<int32_t> types = {2, 3, 3, 4, 4};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    const auto digit = [&](int value) { return kHex[static_cast<size_t>(value)]; };
    tokens.push_back(std::string("<0x") + digit(byte / 16) + digit(byte % 16) + ">");
    types.push_back(6);
  }
  const std::string space(kSpace);
  for (const std::string& piece :
       {space, space + space, space + "a", space + "ab", std::string("ab"), std::string("ba"), std::string("aa"),
        std::string("aaaa"), std::string("\n"), std::string("\n\n")}) {
    tokens.push_back(piece);
    types.push_back(1);
  }
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i * 7 % 11));
  test::GgufBuilder file;
  file.str("tokenizer.ggml.model", model);
  file.strings("tokenizer.ggml.tokens", tokens);
  file.i32s("tokenizer.ggml.token_type", types);
  file.f32s("tokenizer.ggml.scores", scores);
  file.boolean("tokenizer.ggml.add_space_prefix", adds_space);
  return load(file);
}

std::vector<Kind> make_kinds() {
  std::vector<Kind> kinds;
  for (const char* pre : {"smollm", "gpt-2", "llama-bpe", "qwen2", "default", "gpt-4o", "deepseek-llm", "superbpe"})
    kinds.push_back({"gpt2", byte_level(pre)});
  for (const char* model : {"llama", "t5"})
    for (const bool adds_space : {false, true}) kinds.push_back({model, sentence_pieces(model, adds_space)});
  return kinds;
}

std::string with_spaces(std::string text) {
  for (size_t at = 0; (at = text.find(kSpace, at)) != std::string::npos;) text.replace(at, kSpace.size(), " ");
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Kind> kKinds = make_kinds();
  if (size == 0) return 0;
  const Kind& kind = kKinds[(data[0] >> 1) % kKinds.size()];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto ids = kind.tokenizer.encode(text, (data[0] & 1) != 0);
  RUNAHEAD_CHECK(ids.has_value(), "every byte has a token here");
  const std::string back = kind.tokenizer.decode(*ids, true);
  std::string bytes;
  for (const TokenId id : *ids) bytes += kind.tokenizer.token_bytes(id);
  if (kind.model == "gpt2") RUNAHEAD_CHECK(back == text && bytes == text, "the text comes back, and token by token");
  if (kind.model == "llama") RUNAHEAD_CHECK(back == with_spaces(text), "the text comes back, but for U+2581");
  return 0;
}
