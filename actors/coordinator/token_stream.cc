#include "actors/coordinator/token_stream.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {

bool TokenQueue::push(StreamEvent event) {
  if (ended()) return true;
  if (auto* progress = std::get_if<PrefillProgress>(&event)) {
    progress_ = std::move(*progress);
  } else if (auto* prompt = std::get_if<PromptEvent>(&event)) {
    progress_.reset();
    prompt_ = std::move(*prompt);
  } else if (auto* tokens = std::get_if<TokensEvent>(&event)) {
    progress_.reset();
    if (tokens_.tokens.size() + tokens->tokens.size() > limits::kUnreadTokensMax) return false;
    const auto next_index = static_cast<size_t>(tokens_.first_index) + tokens_.tokens.size();
    RUNAHEAD_CHECK(static_cast<size_t>(tokens->first_index) == next_index, "tokens are pushed in order");
    std::ranges::move(tokens->tokens, std::back_inserter(tokens_.tokens));
  } else {
    finished_ = std::get<FinishedEvent>(std::move(event));
  }
  changed_.notify();
  return true;
}

void TokenQueue::close(Error error) {
  if (ended()) return;
  error_ = std::move(error);
  changed_.notify();
}

std::optional<Result<StreamEvent>> TokenQueue::take() {
  if (progress_) return StreamEvent(*std::exchange(progress_, std::nullopt));
  if (prompt_) return StreamEvent(*std::exchange(prompt_, std::nullopt));
  if (!tokens_.tokens.empty()) {
    const auto next_index = tokens_.first_index + static_cast<int32_t>(tokens_.tokens.size());
    return StreamEvent(std::exchange(tokens_, TokensEvent{.first_index = next_index}));
  }
  if (finished_) return StreamEvent(*finished_);
  if (error_) return std::unexpected(*error_);
  return std::nullopt;
}

Task<StreamEvent> TokenQueue::next(std::shared_ptr<TokenQueue> queue, Deadline deadline) {
  for (;;) {
    if (std::optional<Result<StreamEvent>> event = queue->take()) co_return std::move(*event);
    const bool in_time = co_await queue->changed_.wait_until(deadline);
    if (in_time) continue;
    // What came in the very turn of the deadline is not lost: an end that nobody has read looked like the request's own failure.
    if (std::optional<Result<StreamEvent>> event = queue->take()) co_return std::move(*event);
    co_return fail(ErrorCode::kDeadlineExceeded, "no event came in time");
  }
}

}  // namespace runahead
