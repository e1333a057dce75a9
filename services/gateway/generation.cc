#include "services/gateway/generation.h"

#include <algorithm>
#include <utility>

#include "actors/gate.h"
#include "base/limits.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

// The coordinator ends every request by its own deadline. Waiting longer than that, a kDeadlineExceeded always means
// the end.
constexpr auto kOverrun = 30s;

std::string_view finish_reason(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : reason == FinishReason::kStop ? "stop" : "abort";
}

}  // namespace

Generation::Generation(asio::any_io_executor executor, Clock& clock, const TextCodec& codec,
                       std::vector<std::string> stop_strings)
    : executor_(std::move(executor)), clock_(clock), codec_(codec), stop_strings_(std::move(stop_strings)) {}

Result<void> Generation::submit(InferenceService& inference, std::vector<InferenceRequest> requests) {
  for (InferenceRequest& request : requests) {
    auto stream = inference.submit(std::move(request));
    if (!stream) {
      cancel_streams();
      return std::unexpected(std::move(stream.error()));
    }
    streams_.push_back(std::move(*stream));
  }
  results_.resize(streams_.size());
  return {};
}

void Generation::cancel_streams() {
  for (const auto& stream : streams_) stream->cancel();
}

void Generation::cancel() {
  if (!error_) error_ = Error{ErrorCode::kCancelled, "the client went away", ""};
  cancel_streams();
}

Task<void> Generation::run(ChoiceSink& sink) {
  Gate gate(executor_, clock_);
  for (size_t choice = 0; choice < streams_.size(); ++choice)
    gate.spawn(run_choice(static_cast<int32_t>(choice), sink));
  co_await gate.close();
  if (error_) co_return std::unexpected(*error_);
  co_return Result<void>{};
}

asio::awaitable<void> Generation::run_choice(int32_t choice, ChoiceSink& sink) {
  const Result<void> ended = co_await follow(choice, sink);
  if (ended) co_return;
  if (!error_) error_ = ended.error();
  cancel_streams();
}

Task<void> Generation::follow(int32_t choice, ChoiceSink& sink) {
  const std::shared_ptr<TokenStream> stream = streams_[static_cast<size_t>(choice)];
  ChoiceResult& result = results_[static_cast<size_t>(choice)];
  AnswerText text(stop_strings_);
  bool first = true;
  bool stopped = false;  // by a stop string: the client has its text, only the report is missing
  while (!error_) {
    Result<StreamEvent> next = co_await stream->next(clock_.after(limits::kDeadlineMax + kOverrun));
    if (stopped && !next) break;
    StreamEvent event = CO_TRY(next);
    if (auto* progress = std::get_if<PrefillProgress>(&event)) {
      auto sent = co_await sink.progress(choice, std::move(*progress));
      CO_TRY(sent);
    } else if (auto* tokens = std::get_if<TokensEvent>(&event)) {
      if (stopped) continue;
      Result<bool> taken = co_await take_tokens(choice, std::move(*tokens), text, sink);
      stopped = CO_TRY(taken);
      if (std::exchange(first, false)) stream->first_chunk_written();
      if (stopped) stream->finish();
    } else {
      auto& finished = std::get<FinishedEvent>(event);
      result.report = std::move(finished.report);
      if (stopped) break;
      result.finish_reason = finish_reason(finished.reason);
      TextPiece rest = text.flush();
      if (!rest.text.empty() || !rest.tokens.empty()) {
        auto sent = co_await sink.piece(choice, std::move(rest));
        CO_TRY(sent);
      }
      co_return co_await sink.finished(choice, result.finish_reason);
    }
  }
  if (error_) co_return std::unexpected(*error_);
  result.finish_reason = "stop";
  co_return co_await sink.finished(choice, result.finish_reason);
}

// One piece for the whole event. True: a stop string was found.
Task<bool> Generation::take_tokens(int32_t choice, TokensEvent event, AnswerText& text, ChoiceSink& sink) {
  TextPiece piece;
  const bool first = results_[static_cast<size_t>(choice)].completion_tokens == 0;
  for (const SampledToken& token : event.tokens) {
    ++results_[static_cast<size_t>(choice)].completion_tokens;
    TextPiece more = text.push(token, codec_.token_bytes(token.token));
    piece.text += more.text;
    std::ranges::move(more.tokens, std::back_inserter(piece.tokens));
    piece.stopped = more.stopped;
    if (piece.stopped) break;
  }
  const bool stopped = piece.stopped;
  if (first || !piece.text.empty() || !piece.tokens.empty()) {
    auto sent = co_await sink.piece(choice, std::move(piece));
    CO_TRY(sent);
  }
  co_return stopped;
}

}  // namespace runahead
