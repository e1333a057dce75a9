// The added tokens of a folder: those of tokenizer.json, as tokenizer_config.json changes and completes them. By transformers
// 5.24 with `tokenizers` 0.23 (tests/golden/make_hf_added_tokens.py):
//   - an entry of added_tokens_decoder with other flags than tokenizer.json's has the last word;
//   - one that is in neither list gets the vocabulary's id, if its text is a token there, or else the next free one, whatever id
//     the file gives it. Here another one is refused: the model was trained with one of the two;
//   - named tokens (pad_token, ..) and additional ones that are in no list come behind them, as special tokens.
// Private to model/weights/hf_tokenizer.cc.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/parsed_json.h"
#include "base/result.h"

namespace runahead {

struct HfAddedToken {
  uint64_t id = 0;
  std::string text;
  bool special = false, lstrip = false, rstrip = false, normalized = false, single_word = false;

  bool operator==(const HfAddedToken&) const = default;
};

struct HfAddedTokenFiles {
  std::string folder;  // for messages
  const nlohmann::json* tokenizer = nullptr;
  const nlohmann::json* tokenizer_config = nullptr;  // null: there is none
  const std::unordered_map<std::string, uint64_t>* vocabulary = nullptr;  // of the model, without added tokens
  uint64_t vocab_size = 0;  // rows of the embedding
};

// By id. Ids may be beyond the embedding: the model has no row for them.
Result<std::vector<HfAddedToken>> read_hf_added_tokens(const HfAddedTokenFiles& files);

}  // namespace runahead
