#include "clients.h"

#include <cmath>
#include <variant>

#include "base/limits.h"
#include "base/log.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRetryMean = 300ms;       // a client that was refused or saw its connection fail
constexpr Duration kLookUpMean = 150ms;      // a client that asks for its job
constexpr Duration kTimeout = 500ms;  // of one next(): as long as the gateway waits before it writes a comment
constexpr Duration kDeadlineSlack = 1500ms;  // promise P7: a stuck peer costs at most its deadline; timers are coarse
constexpr double kWatchProbability = 0.2;  // of a look at a job, to follow its events instead

// What a client may be told while the world is in trouble. Anything else would be our own mistake.
bool is_honest_failure(ErrorCode code) {
  return code == ErrorCode::kWorkerLost || code == ErrorCode::kUnavailable || code == ErrorCode::kOverloaded ||
         code == ErrorCode::kDeadlineExceeded;
}

}  // namespace

Clients::Clients(SimCluster& cluster) : cluster_(cluster) {
  for (RequestSpec& spec : cluster.scenario.requests) add(spec);
}

void Clients::add(RequestSpec spec) {
  histories_.push_back({.next_at = spec.submit_at});
  specs_.push_back(std::move(spec));
}

bool Clients::all_over() const {
  for (const RequestHistory& history : histories_)
    if (!history.over() || history.busy) return false;
  return true;
}

void Clients::tick() {
  CoordinatorHost* host = cluster_.coordinator();
  for (size_t i = 0; i < histories_.size(); ++i) {
    RequestHistory& history = histories_[i];
    if (history.busy && (!host || host->process.incarnation() != history.incarnation)) {
      history.busy = false;  // the process that served it is dead: the connection has broken
      history.next_at = cluster_.world.now() + cluster_.world.rng.exponential(kRetryMean);
      if (history.state == RequestHistory::State::kStreaming)
        history.state = specs_[i].must_succeed ? RequestHistory::State::kWaiting : RequestHistory::State::kBroken;
      if (history.state == RequestHistory::State::kSending) history.state = RequestHistory::State::kWaiting;
    }
    if (!host || history.busy || history.over() || history.next_at > cluster_.world.now()) continue;
    history.busy = true;
    history.incarnation = host->process.incarnation();
    const Call call{this, host, i};
    if (history.state == RequestHistory::State::kAccepted)
      host->process.spawn(cluster_.world.rng.chance(kWatchProbability) ? watch_job(call) : look_up_job(call));
    else host->process.spawn(specs_[i].is_job ? submit_job(call) : stream(call));
  }
}

RequestHistory* Clients::history(const Call& call) {
  return call.host->process.reachable() ? &histories_[call.index] : nullptr;
}

void Clients::violate(size_t index, const std::string& what) {
  if (violation_.empty())
    violation_ = what + " (" + specs_[index].request.external_id + (specs_[index].is_job ? ", a job)" : ", a stream)");
}

asio::awaitable<void> Clients::stream(Call call) {
  RequestHistory& history = call.clients->histories_[call.index];
  const RequestSpec& spec = call.clients->specs_[call.index];
  SimClock& clock = call.host->clock;
  ++history.sent;
  history.tokens.clear();
  InferenceRequest request = spec.request;
  request.received_at = clock.now();
  auto opened = call.host->coordinator->submit(std::move(request));
  if (!opened) {
    call.clients->on_error(call, history, opened.error());
    co_return;
  }
  history.state = RequestHistory::State::kStreaming;
  std::optional<Time> cancel_at;
  if (spec.cancel_after) cancel_at = clock.now() + *spec.cancel_after;
  const Time sent_at = clock.now();
  auto ended = co_await read_stream(call, std::move(*opened), cancel_at);
  RequestHistory* still = call.clients->history(call);
  if (!still) co_return;
  const Duration limit = spec.request.deadline > 0ns ? spec.request.deadline : limits::kRequestDeadline;
  if (clock.now() - sent_at > limit + kDeadlineSlack && !call.host->was_paused && spec.read_pause_mean == 0ns)
    call.clients->violate(call.index, "LATE: it took " + std::to_string(seconds(clock.now() - sent_at)) + " s of " +
                                          std::to_string(seconds(limit)) + " s");
  if (!ended) call.clients->on_error(call, *still, ended.error());
  else still->busy = false;
}

// Reads to the end; an error is what the stream said, or kCancelled if this client went away.
Task<void> Clients::read_stream(Call call, std::shared_ptr<TokenStream> stream, std::optional<Time> cancel_at) {
  SimClock& clock = call.host->clock;
  bool first = true;
  for (;;) {
    if (cancel_at && clock.now() >= *cancel_at) {
      stream->cancel();
      co_return fail(ErrorCode::kCancelled, "the client went away");
    }
    const Duration pause = call.clients->specs_[call.index].read_pause_mean;
    if (pause > 0ns) co_await clock.sleep_for(call.host->rng.exponential(pause));
    const Time until = std::min(clock.now() + kTimeout, cancel_at.value_or(Time::max()));
    auto event = co_await stream->next({until});
    RequestHistory* history = call.clients->history(call);
    if (!history) co_return Result<void>{};
    if (!event) {
      const bool only_quiet = event.error().code == ErrorCode::kDeadlineExceeded && clock.now() >= until;
      if (only_quiet) continue;
      co_return std::unexpected(event.error());
    }
    if (const auto* prompt = std::get_if<PromptEvent>(&*event)) {
      call.clients->on_prompt(call, *history, *prompt);
      if (std::exchange(first, false)) stream->first_chunk_written();
    } else if (const auto* tokens = std::get_if<TokensEvent>(&*event)) {
      call.clients->on_tokens(call, *history, *tokens);
      const size_t wanted = call.clients->specs_[call.index].finish_at;
      if (wanted > 0 && history->tokens.size() >= wanted) stream->finish();
      if (std::exchange(first, false)) stream->first_chunk_written();
    } else if (const auto* finished = std::get_if<FinishedEvent>(&*event)) {
      call.clients->on_finished(call, *history, *finished);
      co_return Result<void>{};
    }
  }
}

void Clients::on_prompt(const Call& call, RequestHistory& history, const PromptEvent& event) {
  if (std::exchange(history.scored, true) || !history.tokens.empty())
    violate(call.index, "PROMPT_SCORES came late or twice");
  if (event.tokens != specs_[call.index].scores) violate(call.index, "WRONG_PROMPT_SCORES");
}

void Clients::on_tokens(const Call& call, RequestHistory& history, const TokensEvent& event) {
  if (specs_[call.index].request.prompt_logprobs && !history.scored)
    violate(call.index, "PROMPT_SCORES did not come before the first token");
  const std::vector<TokenId>& answer = specs_[call.index].answer;
  if (event.first_index != static_cast<int32_t>(history.tokens.size()))
    return violate(call.index, "TOKEN_INDEX: " + std::to_string(event.first_index) + " came after " +
                                   std::to_string(history.tokens.size()) + " tokens");
  for (const SampledToken& token : event.tokens) {
    const size_t index = history.tokens.size();
    if (index >= answer.size() || answer[index] != token.token)
      return violate(call.index, "WRONG_TOKEN at index " + std::to_string(index));
    history.tokens.push_back(token.token);
  }
}

void Clients::judge_answer(size_t index, RequestHistory& history) {
  const RequestSpec& spec = specs_[index];
  log::debug("client: {} has all its {} tokens", spec.request.external_id, history.tokens.size());
  history.state = RequestHistory::State::kFinished;
  const bool ended_early = spec.finish_at > 0 && history.tokens.size() >= spec.finish_at;
  if (ended_early && history.reason == FinishReason::kStop) return;  // each token was judged as it came
  if (history.tokens != spec.answer)
    violate(index,
            "WRONG_TOKENS: " + std::to_string(history.tokens.size()) + " of " + std::to_string(spec.answer.size()));
  else if (history.reason != spec.finish) violate(index, "WRONG_FINISH_REASON");
}

void Clients::on_finished(const Call& call, RequestHistory& history, const FinishedEvent& event) {
  history.reason = event.reason;
  history.attempts = event.report.attempts;
  judge_answer(call.index, history);
  const TtftReport& r = event.report;
  for (const TtftStage stage : kTtftStages)
    if (r.stages[stage] < -1e-9) violate(call.index, "STAGES: " + std::string(name(stage)) + " is negative");
  const double sum = r.stages.sum();
  if (!history.tokens.empty() && std::abs(sum - r.ttft_seconds) > 0.01 * r.ttft_seconds + 1e-6)
    violate(call.index,
            "STAGES: they sum to " + std::to_string(sum) + " s of " + std::to_string(r.ttft_seconds) + " s");
  if (event.generated != static_cast<int32_t>(history.tokens.size()))
    violate(call.index, "WRONG_COUNT of generated tokens");
}

void Clients::on_error(const Call& call, RequestHistory& history, const Error& error) {
  const RequestSpec& spec = specs_[call.index];
  log::debug("client: {}: {} ({})", spec.request.external_id, error.message, name(error.code));
  history.busy = false;
  history.error = error;
  if (error.code == ErrorCode::kCancelled && spec.cancel_after) {
    history.state = RequestHistory::State::kCancelled;
    return;
  }
  if (!is_honest_failure(error.code))
    violate(call.index, "DISHONEST error " + std::string(name(error.code)) + ": " + error.message);
  // Refused before it was accepted, or wanted for certain: come back later.
  const bool refused =
      history.state == RequestHistory::State::kWaiting || history.state == RequestHistory::State::kSending;
  if ((refused || spec.must_succeed) && history.sent < 200) {
    history.state = RequestHistory::State::kWaiting;
    history.next_at = cluster_.world.now() + cluster_.world.rng.exponential(kRetryMean);
    return;
  }
  history.state = RequestHistory::State::kFailed;
}

asio::awaitable<void> Clients::submit_job(Call call) {
  Clients& clients = *call.clients;
  const RequestSpec& spec = clients.specs_[call.index];
  RequestHistory& history = clients.histories_[call.index];
  history.state = RequestHistory::State::kSending;
  ++history.sent;
  // A named value: GCC 12 destroys an aggregate that is built inside a co_await twice.
  JobSubmission submission{
      .request = spec.request, .idempotency_key = "key-" + std::to_string(spec.number), .client_json = "{}"};
  auto view = co_await call.host->jobs->submit(std::move(submission));
  RequestHistory* still = clients.history(call);
  if (!still) co_return;
  if (!view) {
    clients.on_error(call, *still, view.error());
    co_return;
  }
  if (!still->job_id.empty() && still->job_id != view->head.id) clients.violate(call.index, "DOUBLED_JOB");
  still->job_id = view->head.id;
  still->busy = false;
  still->next_at = clients.cluster_.world.now() + clients.cluster_.world.rng.exponential(kLookUpMean);
  // The answer may be lost on its way: then the client asks again with the same key.
  const bool heard = !clients.cluster_.world.rng.chance(clients.cluster_.scenario.ack_lost_probability);
  still->state = heard ? RequestHistory::State::kAccepted : RequestHistory::State::kWaiting;
}

// Reads a job's events from some index on, as a client that comes back does, and only judges what it is told.
asio::awaitable<void> Clients::watch_job(Call call) {
  Clients& clients = *call.clients;
  const std::vector<TokenId>& answer = clients.specs_[call.index].answer;
  SimClock& clock = call.host->clock;
  auto next_index = static_cast<int32_t>(call.host->rng.below(4));
  const Time until = clock.now() + kTimeout;
  auto events = co_await call.host->jobs->subscribe("", clients.histories_[call.index].job_id, next_index);
  bool over = !events;
  while (!over) {
    auto event = co_await (*events)->next({until});
    if (!clients.history(call)) co_return;
    over = !event || std::holds_alternative<FinishedEvent>(*event);
    const auto* tokens = event ? std::get_if<TokensEvent>(&*event) : nullptr;
    if (tokens && tokens->first_index != next_index) clients.violate(call.index, "TOKEN_INDEX of a job's event");
    if (!tokens) continue;
    for (const SampledToken& token : tokens->tokens) {
      const auto index = static_cast<size_t>(next_index++);
      if (index >= answer.size() || answer[index] != token.token)
        clients.violate(call.index, "WRONG_TOKEN of a job's event");
    }
  }
  RequestHistory* history = clients.history(call);
  if (history) history->busy = false;
}

asio::awaitable<void> Clients::look_up_job(Call call) {
  Clients& clients = *call.clients;
  const std::string id = clients.histories_[call.index].job_id;
  const std::optional<Duration> cancel_after = clients.specs_[call.index].cancel_after;
  Result<JobView> view;  // GCC 12 destroys the wrong temporary of `c ? co_await a : co_await b`
  if (cancel_after) view = co_await call.host->jobs->cancel("", id);
  else view = co_await call.host->jobs->find("", id);
  RequestHistory* history = clients.history(call);
  if (!history) co_return;
  history->busy = false;
  history->next_at = clients.cluster_.world.now() + clients.cluster_.world.rng.exponential(kLookUpMean);
  if (!view) {
    if (view.error().code == ErrorCode::kNotFound) clients.violate(call.index, "LOST_JOB: it was accepted and is gone");
    co_return;
  }
  switch (view->head.status) {
    case JobStatus::kQueued:
    case JobStatus::kRunning:
      break;
    case JobStatus::kSucceeded:
      history->tokens.clear();
      for (const SampledToken& token : view->result->tokens) history->tokens.push_back(token.token);
      history->reason = view->result->finished ? view->result->finished->reason : FinishReason::kAbort;
      history->attempts = view->result->finished ? view->result->finished->report.attempts : 0;
      clients.judge_answer(call.index, *history);
      break;
    case JobStatus::kFailed:
      history->state = RequestHistory::State::kFailed;
      history->error = view->head.error.value_or(Error{});
      if (!is_honest_failure(history->error.code) || clients.specs_[call.index].must_succeed)
        clients.violate(call.index,
                        "FAILED_JOB: " + std::string(name(history->error.code)) + ": " + history->error.message);
      break;
    case JobStatus::kCancelled:
      history->state = RequestHistory::State::kCancelled;
      if (!cancel_after) clients.violate(call.index, "CANCELLED_JOB: nobody asked for it");
      break;
  }
}

}  // namespace runahead::test
