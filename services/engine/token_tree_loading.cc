#include "services/engine/token_tree_loading.h"

#include "model/tokenizer/tokenizer.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

Result<std::shared_ptr<const grammar::TokenTree>> load(const ModelFlags& model) {
  const Gguf file = TRY(open_model(model));
  const Tokenizer tokenizer = TRY(Tokenizer::load(file));
  std::vector<std::string> bytes(static_cast<size_t>(tokenizer.vocab_size()));
  for (TokenId token = 0; token < tokenizer.vocab_size(); ++token) {
    const std::string spelled(tokenizer.token_bytes(token));
    std::string& own = bytes[static_cast<size_t>(token)];
    if (tokenizer.is_control(token)) own = grammar::control_bytes(spelled);
    else if (!spelled.contains(grammar::kControlByte)) own = spelled;
  }
  return std::make_shared<const grammar::TokenTree>(std::move(bytes), tokenizer.end_tokens());
}

}  // namespace

grammar::Grammars::MakeTree token_tree_of(ModelFlags model) {
  return [model = std::move(model)] { return load(model); };
}

}  // namespace runahead
