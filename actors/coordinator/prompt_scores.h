// PromptScoreBook: the log-probabilities of a prompt while the ranks of one attempt report them. Each rank speaks of the
// tokens behind its own rows, in order; the first token of a prompt has none. Pure; owned by the attempt.
//   limits   as many entries as the prompt has tokens, with no more alternatives than were asked for: it grows with what
//            came, not with what was announced.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/token_range.h"
#include "model/sampling_params.h"
#include "proto/control.pb.h"

namespace runahead {

class PromptScoreBook {
 public:
  // chunks: of all ranks; the last one ends with the prompt.
  PromptScoreBook(std::span<const TokenRange> chunks, int32_t top);

  // Of a rank of this attempt, range-checked. kInternal if it is not what comes next there, or not of this prompt.
  Result<void> add(const proto::PromptScores& part, std::span<const TokenId> prompt);
  bool is_complete(size_t rank) const { return std::ssize(ranks_[rank].tokens) == ranks_[rank].positions.size(); }
  bool is_complete() const;
  // Of the prompt's tokens from the second on. Once.
  std::vector<SampledToken> take();

 private:
  struct Rank {
    TokenRange positions;  // that it speaks of
    std::vector<SampledToken> tokens;
  };
  std::vector<Rank> ranks_;
  int32_t top_;
};

}  // namespace runahead
