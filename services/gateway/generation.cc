#include "services/gateway/generation.h"

#include <algorithm>
#include <utility>

#include "base/async/gate.h"
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
                       IncrementalDetokenizer empty_answer)
    : executor_(std::move(executor)), clock_(clock), codec_(codec), empty_answer_(std::move(empty_answer)) {}

Result<void> Generation::submit(InferenceService& inference, std::vector<InferenceRequest> requests) {
  for (InferenceRequest& request : requests) {
    // Evaluation tools cut one entry off the end, for the token that they ask for: a stop token must have one, too.
    Choice& choice = choices_.emplace_back();
    choice.shows_stop_token = request.prompt_logprobs.has_value();
    choice.only_prompt = request.max_new_tokens == 0;
    if (choice.only_prompt && !request.prompt_logprobs) continue;
    request.max_new_tokens = std::max(request.max_new_tokens, 1);
    auto stream = inference.submit(std::move(request));
    if (!stream) {
      cancel_streams();
      return std::unexpected(std::move(stream.error()));
    }
    choice.stream = std::move(*stream);
  }
  results_.resize(choices_.size());
  return {};
}

void Generation::cancel_streams() {
  for (const Choice& choice : choices_)
    if (choice.stream) choice.stream->cancel();
}

void Generation::cancel(std::string why) {
  // A client may close as soon as it has read what it wants: nothing is left to cancel then.
  if (std::ranges::none_of(results_, &std::string::empty, &ChoiceResult::finish_reason)) return;
  if (!error_) error_ = Error{ErrorCode::kCancelled, std::move(why), ""};
  cancel_streams();
}

Task<void> Generation::run(ChoiceSink& sink) {
  Gate gate(executor_, clock_);
  for (size_t choice = 0; choice < choices_.size(); ++choice)
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
  const auto& [stream, only_prompt, shows_stop_token] = choices_[static_cast<size_t>(choice)];
  ChoiceResult& result = results_[static_cast<size_t>(choice)];
  IncrementalDetokenizer text = empty_answer_;
  if (!stream) {
    result.finish_reason = finish_reason(FinishReason::kLength);
    TextPiece nothing;  // named: GCC 12 frees a temporary argument of a coroutine twice
    auto begun = co_await sink.piece(choice, std::move(nothing));
    CO_TRY(begun);
    co_return co_await sink.finished(choice, result.finish_reason);
  }
  bool first = true;
  bool stopped = false;  // by a stop string: the client has its text, only the report is missing
  while (!error_) {
    Result<StreamEvent> next = co_await stream->next(clock_.after(limits::kDeadlineMax + kOverrun));
    if (stopped && !next) break;
    StreamEvent event = CO_TRY(next);
    if (auto* progress = std::get_if<PrefillProgress>(&event)) {
      auto sent = co_await sink.progress(choice, std::move(*progress));
      CO_TRY(sent);
    } else if (auto* prompt = std::get_if<PromptEvent>(&event)) {
      auto sent = co_await sink.prompt(choice, std::move(prompt->tokens));
      CO_TRY(sent);
      if (std::exchange(first, false)) stream->first_chunk_written();
    } else if (auto* tokens = std::get_if<TokensEvent>(&event)) {
      if (stopped || only_prompt) continue;
      Result<bool> taken = co_await take_tokens(choice, std::move(*tokens), text, sink);
      stopped = CO_TRY(taken);
      if (std::exchange(first, false)) stream->first_chunk_written();
      if (stopped) stream->finish();
    } else {
      auto& finished = std::get<FinishedEvent>(event);
      result.report = std::move(finished.report);
      if (stopped) break;
      co_return co_await end_choice(choice, std::move(finished), text, sink);
    }
  }
  if (error_) co_return std::unexpected(*error_);
  result.finish_reason = "stop";
  co_return co_await sink.finished(choice, result.finish_reason);
}

// What the text held back, and the token that ended it.
Task<void> Generation::end_choice(int32_t choice, FinishedEvent finished, IncrementalDetokenizer& text,
                                  ChoiceSink& sink) {
  const auto& [stream, only_prompt, shows_stop_token] = choices_[static_cast<size_t>(choice)];
  ChoiceResult& result = results_[static_cast<size_t>(choice)];
  result.finish_reason = finish_reason(only_prompt ? FinishReason::kLength : finished.reason);
  TextPiece rest = text.flush();
  if (finished.stop_token && shows_stop_token && !only_prompt)
    std::ranges::move(text.push(*finished.stop_token, "").tokens, std::back_inserter(rest.tokens));
  if (!rest.text.empty() || !rest.tokens.empty()) {
    auto sent = co_await sink.piece(choice, std::move(rest));
    CO_TRY(sent);
  }
  co_return co_await sink.finished(choice, result.finish_reason);
}

// One piece for the whole event. True: a stop string was found.
Task<bool> Generation::take_tokens(int32_t choice, TokensEvent event, IncrementalDetokenizer& text, ChoiceSink& sink) {
  TextPiece piece;
  const bool first = results_[static_cast<size_t>(choice)].completion_tokens == 0;
  for (const SampledToken& token : event.tokens) {
    ++results_[static_cast<size_t>(choice)].completion_tokens;
    TextPiece more = text.push(token, codec_.token_bytes(token.token));
    piece.text += more.text;
    std::ranges::move(more.tokens, std::back_inserter(piece.tokens));
    piece.stopped = more.stopped;
    if (!piece.stopped) continue;
    results_[static_cast<size_t>(choice)].stop_string = std::move(more.stop);
    break;
  }
  const bool stopped = piece.stopped;
  if (first || !piece.text.empty() || !piece.tokens.empty()) {
    auto sent = co_await sink.piece(choice, std::move(piece));
    CO_TRY(sent);
  }
  co_return stopped;
}

}  // namespace runahead
