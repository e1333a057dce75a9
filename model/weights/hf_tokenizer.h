// tokenizer.json and its neighbours, as the GGUF keys that they would have been converted to. GGUF names a pre-tokenizer; here
// its expressions themselves are told (runahead.tokenizer.expressions), and model/tokenizer finds them among those it has.
//   threads  pure.
#pragma once

#include <string>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"
#include "model/weights/gguf_keys.h"

namespace runahead {

// Of an added token, in runahead.tokenizer.added: its id, then the sum of these. OfModel: the model's vocabulary has it, too.
enum HfTokenFlag : int32_t { kHfLstrip = 1, kHfRstrip = 2, kHfSingleWord = 4, kHfNormalized = 8, kHfOfModel = 16 };

// Null or empty: the folder has no such file.
struct HfTokenizerFiles {
  std::string folder;  // for messages
  const nlohmann::json* tokenizer = nullptr;
  const nlohmann::json* tokenizer_config = nullptr;
  const nlohmann::json* generation_config = nullptr;
  const nlohmann::json* config = nullptr;
  std::string chat_template;  // chat_template.jinja
  uint64_t vocab_size = 0;  // rows of the embedding
};

// Adds tokenizer.* and runahead.*. kUnsupported names what is not done: another model, normaliser, pre-tokenizer, post-processor.
Result<void> read_hf_tokenizer(const HfTokenizerFiles& files, GgufKeys& keys);
// Private to hf_tokenizer.cc: how a text becomes pieces (hf_text_steps.cc; hf_unigram.cc). `tokenizer`: tokenizer.json.
Result<void> read_hf_text_steps(const nlohmann::json& tokenizer, const std::string& name, GgufKeys& keys);

// `model`: that of tokenizer.json.
bool is_hf_unigram(const nlohmann::json& model);
Result<void> read_hf_unigram_steps(const nlohmann::json& tokenizer, const std::string& name, GgufKeys& keys);
// The tokens, whose places are their ids, and their scores (tokenizer.ggml.scores). `name`: the file's, for messages.
Result<std::vector<std::string>> read_hf_unigram_vocab(const nlohmann::json& model, const std::string& name,
                                                       uint64_t vocab_size, GgufKeys& keys);

}  // namespace runahead
