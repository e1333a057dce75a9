// TokenQueue: the two ends of one answer. The coordinator pushes events in order; the gateway reads them as a
// TokenStream. Tokens that nobody has read yet are merged into one event, progress that nobody has read is replaced.
//   threads  the executor's one thread; one reader.
//   owner    shared by both ends; reading goes on after the coordinator is gone.
//   limits   kUnreadTokensMax tokens unread: then push() says false, and the coordinator ends the request.
#pragma once

#include <memory>
#include <optional>

#include "actors/inference.h"
#include "base/async/wake.h"

namespace runahead {

class TokenQueue {
 public:
  TokenQueue(asio::any_io_executor executor, Clock& clock) : changed_(std::move(executor), clock) {}

  [[nodiscard]] bool push(StreamEvent event);
  // The last event. What was pushed before is still read first.
  void close(Error error);
  bool ended() const { return finished_ || error_; }

  static Task<StreamEvent> next(std::shared_ptr<TokenQueue> queue, Deadline deadline);

 private:
  std::optional<Result<StreamEvent>> take();

  std::optional<PrefillProgress> progress_;
  std::optional<PromptEvent> prompt_;
  TokensEvent tokens_;  // unread
  std::optional<FinishedEvent> finished_;
  std::optional<Error> error_;
  Wake changed_;
};

}  // namespace runahead
