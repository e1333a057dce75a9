// Grammars: the grammars that a worker has in use, compiled and with their masks, and the vocabulary as the masks need it, which
// is made when the first one is asked for. AnswerGrammar: one answer's place in its grammar.
//   threads  one at a time (the compute lane).
//   memory   limits::kGrammarsKept grammars, the last used; answers keep theirs.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>

#include "model/grammar/token_masks.h"

namespace runahead::grammar {

class Grammars {
 public:
  // kUnsupported where the model has no tokenizer. None: there is none.
  using MakeTree = std::function<Result<std::shared_ptr<const TokenTree>>()>;

  explicit Grammars(MakeTree make_tree) : make_tree_(std::move(make_tree)) {}

  Result<std::shared_ptr<TokenMasks>> find(const std::string& grammar);

 private:
  struct Kept {
    std::string grammar;
    std::shared_ptr<TokenMasks> masks;
  };

  MakeTree make_tree_;
  std::shared_ptr<const TokenTree> tree_;
  std::list<Kept> kept_;  // the last used first
};

class AnswerGrammar {
 public:
  // For the token behind `generated`; empty if there is no grammar. Valid until the next call for any answer.
  Result<std::span<const uint64_t>> mask(Grammars& grammars, const std::string& grammar,
                                         std::span<const TokenId> generated);

 private:
  std::shared_ptr<TokenMasks> masks_;
  TokenMasks::Reader reader_;
};

}  // namespace runahead::grammar
