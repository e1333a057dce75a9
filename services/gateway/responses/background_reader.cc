#include "services/gateway/responses/background_reader.h"

#include "services/http/api_error.h"

namespace runahead {

Task<void> BackgroundReader::run(int64_t seen) {
  Result<std::shared_ptr<JobEvents>> tokens = co_await jobs_.subscribe(job_.head.owner, job_.head.id, 0);
  if (!tokens) {
    co_await exchange_.respond(error_reply(tokens.error()));
    co_return std::unexpected(tokens.error());
  }
  SseWriter writer(exchange_, context_.executor, context_.clock, context_.options.ping_interval);
  co_await writer.begin();
  ResponseEvents events(writer, context_.codec, job_, seen);
  const Result<void> told = co_await tell(**tokens, events);
  co_await writer.finish();
  co_return told;
}

Task<void> BackgroundReader::tell(JobEvents& tokens, ResponseEvents& events) {
  JobView begun = job_;
  begun.head.status = JobStatus::kQueued;
  begun.head.error.reset();
  begun.result.reset();
  auto sent = co_await events.begin(begun);
  CO_TRY(sent);
  while (!exchange_.disconnected()) {
    Result<StreamEvent> next = co_await tokens.next(context_.clock.after(context_.options.ping_interval));
    const bool silence = !next && next.error().code == ErrorCode::kDeadlineExceeded;
    if (silence) {
      Result<JobView> now = co_await jobs_.find(job_.head.owner, job_.head.id);
      const bool goes_on = now && !has_ended(now->head.status);
      if (goes_on && context_.is_over()) break;
      if (goes_on) continue;
    }
    if (!next || std::holds_alternative<FinishedEvent>(*next)) co_return co_await finish(events);
    if (auto* some = std::get_if<TokensEvent>(&*next)) {
      sent = co_await push(*some, events);
      CO_TRY(sent);
    }
  }
  co_return fail(ErrorCode::kCancelled, "the client went away, or the service did");
}

Task<void> BackgroundReader::push(const TokensEvent& event, ResponseEvents& events) {
  for (const SampledToken& token : event.tokens) {
    auto sent = co_await events.text(text_.push(token, context_.codec.token_bytes(token.token)));
    CO_TRY(sent);
  }
  co_return Result<void>{};
}

Task<void> BackgroundReader::finish(ResponseEvents& events) {
  Result<JobView> found = co_await jobs_.find(job_.head.owner, job_.head.id);
  const JobView job = CO_TRY(found);
  TextPiece rest = text_.flush();
  if (!rest.text.empty()) {
    auto sent = co_await events.text(std::move(rest));
    CO_TRY(sent);
  }
  co_return co_await events.end(job);
}

}  // namespace runahead
