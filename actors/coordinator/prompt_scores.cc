#include "actors/coordinator/prompt_scores.h"

#include <algorithm>
#include <iterator>

#include "actors/messages.h"

namespace runahead {

PromptScoreBook::PromptScoreBook(std::span<const TokenRange> chunks, int32_t top) : top_(top) {
  for (const TokenRange chunk : chunks) ranks_.push_back({.positions = {chunk.begin + 1, chunk.end + 1}});
  --ranks_.back().positions.end;  // behind the prompt comes the answer
}

Result<void> PromptScoreBook::add(const proto::PromptScores& part, std::span<const TokenId> prompt) {
  const auto wrong = [] { return fail(ErrorCode::kInternal, "log-probabilities of the prompt came out of order"); };
  Rank& rank = ranks_[part.rank()];
  if (part.begin() != rank.positions.begin + std::ssize(rank.tokens)) return wrong();
  if (part.tokens_size() > rank.positions.end - part.begin()) return wrong();
  for (int i = 0; i < part.tokens_size(); ++i)
    if (part.tokens(i).id() != prompt[static_cast<size_t>(part.begin() + i)] || part.tokens(i).top_size() > top_)
      return fail(ErrorCode::kInternal, "log-probabilities of another prompt came");
  for (const proto::Token& token : part.tokens()) rank.tokens.push_back(decode(token));
  return {};
}

bool PromptScoreBook::is_complete() const {
  for (size_t rank = 0; rank < ranks_.size(); ++rank)
    if (!is_complete(rank)) return false;
  return true;
}

std::vector<SampledToken> PromptScoreBook::take() {
  std::vector<SampledToken> all;
  for (Rank& rank : ranks_) std::ranges::move(rank.tokens, std::back_inserter(all));
  return all;
}

}  // namespace runahead
