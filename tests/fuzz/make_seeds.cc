// make_seeds DIR: valid inputs that the fuzzers of binary formats start from.
#include <cstdio>
#include <filesystem>

#include "tests/support/gguf_builder.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

// Every kind of value and a tensor, in half a kilobyte.
GgufBuilder values() {
  GgufBuilder file;
  file.u32("general.alignment", 64);
  file.alignment = 64;
  file.i32("number", -1);
  file.f32("float", 0.5f);
  file.boolean("bool", true);
  file.strings("strings", {"a", "", "bcd"});
  file.i32s("ints", {1, 2, 3});
  file.f32s("floats", {1, 2});
  file.f32_tensor("m", {4, 2}, std::vector<float>(8));
  return file;
}

GgufBuilder tokenizer() {
  GgufBuilder file;
  add_tiny_tokenizer(file, tiny_vocabulary());
  return file;
}

GgufBuilder sentence_pieces(const char* model) {
  GgufBuilder file;
  file.str("tokenizer.ggml.model", model);
  file.strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x61>", "\xE2\x96\x81", "a", "aa"});
  file.i32s("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 1, 1});
  file.f32s("tokenizer.ggml.scores", {0, 0, 0, 0, -3, -2, -1});
  file.boolean("tokenizer.ggml.add_space_prefix", true);
  std::vector<std::byte> rules(32);  // an empty trie of four units, and right sides
  rules[0] = std::byte{16};
  file.key("tokenizer.ggml.precompiled_charsmap", 9).number<uint32_t>(0).number<uint64_t>(rules.size()).raw(rules);
  return file;
}

GgufBuilder config() {
  GgufBuilder file;
  add_tiny_keys(file, TinyShape{}, 2);
  file.f32_tensor("token_embd.weight", {64, 2}, std::vector<float>(128));
  file.f32_tensor("rope_freqs.weight", {16}, std::vector<float>(16, 1));
  return file;
}

}  // namespace
}  // namespace runahead::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds DIR\n");
    return 2;
  }
  const std::filesystem::path gguf = std::filesystem::path(argv[1]) / "gguf_fuzz";
  std::filesystem::create_directories(gguf);
  runahead::test::values().write(gguf / "values");
  runahead::test::tokenizer().write(gguf / "tokenizer");
  for (const char* model : {"llama", "t5"}) runahead::test::sentence_pieces(model).write(gguf / model);
  runahead::test::config().write(gguf / "config");
  return 0;
}
