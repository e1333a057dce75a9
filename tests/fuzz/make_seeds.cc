// make_seeds DIR: valid inputs that fuzzers start from: of binary formats, and of bodies with many fields.
#include <cstdio>
#include <filesystem>

#include "tests/support/gguf_builder.h"
#include "tests/support/hf_folder_builder.h"
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

// The files of a folder, each behind the letter of its kind.
void write_hf_seeds(const std::filesystem::path& folder) {
  SafetensorsBuilder weights;
  weights.tensor("transformer.h.0.self_attention.query_key_value.weight", "F16", {8, 2}, std::vector<float>(16));
  weights.tensor("transformer.ln_f.weight", "F32", {2}, std::vector<float>(2));
  weights.tensor("transformer.word_embeddings.weight", "BF16", {3, 2}, std::vector<float>(6));
  for (const char* name : {"mlp.gate", "mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.0.down_proj"})
    weights.tensor(std::string("model.layers.0.") + name + ".weight", "BF16", {2, 2}, std::vector<float>(4));
  weights.header["__metadata__"] = {{"format", "pt"}};
  write_file(folder / "weights", "s" + weights.build());
  write_file(folder / "llama", "c" + to_ordered_text(tiny_hf_config(3)));
  nlohmann::ordered_json config = tiny_hf_config(3);
  config["model_type"] = "gemma3_text", config["hidden_act"] = "gelu_pytorch_tanh", config["sliding_window"] = 8;
  config["rope_parameters"] = {{"full_attention", {{"rope_type", "yarn"}, {"factor", 2}, {"rope_theta", 1e6}}},
                               {"sliding_attention", {{"rope_type", "default"}}}};
  write_file(folder / "gemma3", "c" + to_ordered_text(config));
  config = tiny_hf_config(3);
  config["model_type"] = "qwen3_moe", config["num_experts"] = 4, config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 32, config["norm_topk_prob"] = true, config["mlp_only_layers"] = {};
  write_file(folder / "qwen3-moe", "c" + to_ordered_text(config));
  nlohmann::ordered_json tokenizer = {
      {"added_tokens", {{{"id", 0}, {"content", "<s>"}, {"special", true}, {"rstrip", true}}}},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"model", {{"type", "BPE"}, {"vocab", {{"<s>", 0}, {"a", 1}, {"b", 2}, {"ab", 3}}}, {"merges", {"a b"}}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}},
      {"bos_token", "<s>"},
      {"eos_token_id", {3}},
      {"added_tokens_decoder",
       {{"0", {{"content", "<s>"}, {"special", true}}}, {"4", {{"content", "<new>"}, {"rstrip", true}}}}},
      {"additional_special_tokens", {"<other>"}},
      {"chat_template", {{{"name", "default"}, {"template", "t"}}}}};
  write_file(folder / "byte-level", "t" + to_ordered_text(tokenizer));
  tokenizer.erase("added_tokens_decoder");
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    tokenizer["model"]["vocab"][name] = 4 + byte;
  }
  tokenizer["model"]["byte_fallback"] = true;
  tokenizer["normalizer"] = nullptr;
  tokenizer["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}, {"prepend_scheme", "first"}, {"split", false}};
  write_file(folder / "characters", "t" + to_ordered_text(tokenizer));
  const auto replace = [](const char* kind, const char* from) {
    return nlohmann::ordered_json{{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", "\xE2\x96\x81"}};
  };
  tokenizer["normalizer"] = {{"type", "Sequence"},
                             {"normalizers",
                              {{{"type", "Precompiled"}, {"precompiled_charsmap", "BAAAAAAAAAAA"}},
                               {{"type", "Nmt"}},
                               {{"type", "NFKC"}},
                               {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}},
                               replace("String", "the"),
                               replace("Regex", " {2,}"),
                               replace("Regex", "\\A +| +\\z"),
                               replace("Regex", "\\A\xE2\x96\x81")}}};
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "WhitespaceSplit"}}, {{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}}}}};
  nlohmann::ordered_json vocab =
      nlohmann::ordered_json::array({{"<unk>", 0}, {"<s>", 0}, {"\xE2\x96\x81o", -1.5}, {"ne", -2}});
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    vocab.push_back({name, 0});
  }
  tokenizer["model"] = {{"type", "Unigram"}, {"unk_id", 0}, {"byte_fallback", true}, {"vocab", vocab}};
  tokenizer["added_tokens"][0]["id"] = 1;
  write_file(folder / "unigram", "t" + to_ordered_text(tokenizer));
}

// Bodies of the API, each behind the letter of its route (json_request_fuzz.cc).
void write_body_seeds(const std::filesystem::path& folder) {
  using nlohmann::ordered_json;
  const auto write = [&](char route, const char* name, const char* text) {
    write_file(folder / name, route + to_ordered_text(ordered_json::parse(text)));
  };
  write('c', "completion", R"({"model": "toy", "prompt": ["a", [1, 2]], "max_tokens": 3, "n": 2, "stop": ["x"],
    "logprobs": 2, "echo": true, "temperature": 0.5, "top_p": 0.9, "seed": 7, "logit_bias": {"5": -1}, "stream": true,
    "stream_options": {"include_usage": true}})");
  write('h', "chat", R"({"messages": [{"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "u"}]}], "max_completion_tokens": 3, "top_k": 4, "min_p": 0.1,
    "top_logprobs": 2, "logprobs": true, "cache_salt": "x"})");
  write('h', "chat-tools", R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "tool_calls":
    [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "r"}], "tool_choice": "required", "tools": [{"type": "function",
    "function": {"name": "f", "description": "d", "strict": true, "parameters": {"type": "object",
    "properties": {"a": {"type": "string"}}, "required": ["a"]}}}]})");
  write('h', "chat-schema",
        R"({"messages": [{"role": "user", "content": "u"}], "response_format": {"type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}},
    "required": ["a"]}}}})");
  write('m', "messages", R"({"max_tokens": 3, "system": "s", "messages": [{"role": "user", "content": "u"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "r"}]}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}], "stop_sequences": ["x"]})");
  write('r', "response", R"({"input": [{"role": "user", "content": "u"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "r"}], "instructions": "i", "store": false,
    "max_output_tokens": 3, "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}})");
  write_file(folder / "header", "eContent-Type: text/plain\r\nAccept: */*\r\n");
  write_file(folder / "text", "t<|stop text \xC3\xA9 that ends <|stop");
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
  runahead::test::write_hf_seeds(std::filesystem::path(argv[1]) / "hf_folder_fuzz");
  runahead::test::write_body_seeds(std::filesystem::path(argv[1]) / "json_request_fuzz");
  return 0;
}
