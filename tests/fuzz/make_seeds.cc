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
  runahead::test::config().write(gguf / "config");
  return 0;
}
