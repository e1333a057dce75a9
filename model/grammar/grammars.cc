#include "model/grammar/grammars.h"

#include <algorithm>

#include "base/limits.h"
#include "model/grammar/grammar.h"

namespace runahead::grammar {

Result<std::shared_ptr<TokenMasks>> Grammars::find(const std::string& grammar) {
  const auto found = std::ranges::find(kept_, grammar, &Kept::grammar);
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return found->masks;
  }
  if (!tree_ && !make_tree_) return fail(ErrorCode::kUnsupported, "this worker's model has no tokenizer");
  if (!tree_) tree_ = TRY(make_tree_());
  kept_.push_front({grammar, std::make_shared<TokenMasks>(TRY(compile(grammar)), tree_)});
  if (kept_.size() > limits::kGrammarsKept) kept_.pop_back();
  return kept_.front().masks;
}

Result<std::span<const uint64_t>> AnswerGrammar::mask(Grammars& grammars, const std::string& grammar,
                                                      std::span<const TokenId> generated) {
  if (grammar.empty()) return std::span<const uint64_t>();
  if (!masks_) masks_ = TRY(grammars.find(grammar));
  return masks_->behind(generated, reader_);
}

}  // namespace runahead::grammar
