// CoordinatorCore: what happens to an attempt. Its messages, the order of its tokens, its failure, its end.
#include <algorithm>

#include "actors/coordinator/coordinator_core.h"
#include "base/limits.h"
#include "base/log_limit.h"
#include "base/sha256.h"

namespace runahead {
namespace {

// Full pages and busy lanes pass; the next try is soon but not at once.
constexpr Duration kOverloadedPause = std::chrono::milliseconds(100);

bool is_worth_a_retry(ErrorCode code) {
  switch (code) {
    case ErrorCode::kWorkerLost:
    case ErrorCode::kUnavailable:
    case ErrorCode::kOverloaded:
    case ErrorCode::kCorrupt:
    case ErrorCode::kStale:
    case ErrorCode::kCancelled:         // a peer ended its stream; the request itself is wanted
    case ErrorCode::kDeadlineExceeded:  // of a transfer; the request's own ends it anyway
    case ErrorCode::kInternal:
      return true;
    default:
      return false;  // the request itself is at fault, or the model
  }
}

// Not where it had no room, or no longer kept what it was thought to keep, or the model is at fault.
bool is_fault_of_worker(ErrorCode code) {
  switch (code) {
    case ErrorCode::kWorkerLost:
    case ErrorCode::kUnavailable:
    case ErrorCode::kCorrupt:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kInternal:
      return true;
    default:
      return false;
  }
}

void note_work(RankReport& rank, const proto::RankTiming& timing, double reported_at) {
  rank.compute_seconds = timing.compute_seconds();
  rank.kv_wait_seconds = timing.kv_wait_seconds();
  rank.lane_wait_seconds = timing.lane_wait_seconds();
  rank.sample_seconds = timing.sample_seconds();
  rank.total_seconds = timing.total_seconds();
  rank.worked_at_seconds = reported_at;
}

void note_sending(RankReport& rank, const proto::RankTiming& timing, double reported_at) {
  rank.kv_sent_bytes = timing.kv_sent_bytes();
  rank.kv_received_bytes = timing.kv_received_bytes();
  rank.kv_send_seconds = timing.kv_send_seconds();
  rank.kv_wire_seconds = timing.kv_wire_seconds();
  rank.sent_at_seconds = reported_at;
}

}  // namespace

// The ledger first: pages are back whether or not anybody still cares for the attempt.
void CoordinatorCore::book_pages(Worker& worker, const proto::Envelope& message) {
  const AttemptId id = attempt_of(message);
  if (message.has_rank_done()) WorkerRegistry::release(worker, id, message.rank_done().kept_pages());
  if (message.has_prompt_kept()) WorkerRegistry::keep_prompt(worker, id, message.prompt_kept().kept_pages());
  if (message.has_decode_done()) WorkerRegistry::release(worker, id, message.decode_done().kept_pages());
  if (message.has_attempt_ended()) WorkerRegistry::release(worker, id, message.attempt_ended().kept_pages());
}

void CoordinatorCore::on_attempt_message(Worker& worker, const proto::Envelope& message, Time now) {
  book_pages(worker, message);
  if (message.has_decode_done()) {
    const proto::DecodeDone& done = message.decode_done();
    metrics_.handoff(done.handoff_seconds());
    if (Worker* to = registry_.find(done.given_to()))
      WorkerRegistry::learn_given(*to, static_cast<double>(done.kv_given_bytes()), done.kv_given_seconds());
  }

  Request* request = is_current(worker, message);
  if (request == nullptr || !may_say(worker, *request->attempt, message)) return;
  request->attempt->progress_at = now;
  WorkerRegistry::note_work(worker, now);
  switch (message.body_case()) {
    case proto::Envelope::kRankProgress:
      return on_rank_progress(*request, message.rank_progress());
    case proto::Envelope::kPromptScores:
      return on_prompt_scores(*request, worker, message.prompt_scores(), now);
    case proto::Envelope::kFirstToken:
      return hold_first_token(*request, message.first_token(), now);
    case proto::Envelope::kRankDone:
      WorkerRegistry::note_success(worker);
      return on_rank_done(*request, message.rank_done(), now);
    case proto::Envelope::kPromptKept:
      request->attempt->prompt_kept = true;
      return;
    case proto::Envelope::kTokenBatch: {
      WorkerRegistry::note_success(worker);
      std::vector<SampledToken> tokens;
      for (const proto::Token& token : message.token_batch().tokens()) tokens.push_back(decode(token));
      return accept_tokens(*request, message.token_batch().first_index(), std::move(tokens), now);
    }
    case proto::Envelope::kDecodeDone:
      if (!request->complete)
        fail_attempt(*request, {{ErrorCode::kInternal, "the decode worker ended before all tokens had come"}}, now);
      return;
    case proto::Envelope::kAttemptFailed:
      return on_attempt_failed(*request, worker, decode(message.attempt_failed().failure()), now);
    case proto::Envelope::kAttemptEnded:
      return fail_attempt(*request,
                          {{ErrorCode::kUnavailable, "worker " + worker.name + " ended the attempt"}, worker.id}, now);
    default:
      return;
  }
}

// Fencing: only members of the request's present attempt are heard.
CoordinatorCore::Request* CoordinatorCore::is_current(const Worker& worker, const proto::Envelope& message) {
  Request* request = find(message.request());
  if (request == nullptr || !request->attempt) return nullptr;
  const Attempt& attempt = *request->attempt;
  if (attempt.id != attempt_of(message) && !options_.faults.skip_attempt_check) return nullptr;
  const bool is_member = attempt.decode == worker.id || std::ranges::count(attempt.ranks, worker.id) > 0;
  return is_member ? request : nullptr;
}

// Everybody speaks of its own part only.
bool CoordinatorCore::may_say(const Worker& worker, const Attempt& attempt, const proto::Envelope& message) {
  const auto is_rank = [&](uint32_t rank) { return rank < attempt.ranks.size() && attempt.ranks[rank] == worker.id; };
  switch (message.body_case()) {
    case proto::Envelope::kRankProgress:
      return is_rank(message.rank_progress().rank());
    case proto::Envelope::kRankDone:
      return is_rank(message.rank_done().rank()) && !attempt.rank_done[message.rank_done().rank()];
    case proto::Envelope::kPromptScores:
      return is_rank(message.prompt_scores().rank());
    case proto::Envelope::kFirstToken:
      return attempt.ranks.back() == worker.id;
    case proto::Envelope::kPromptKept:
    case proto::Envelope::kTokenBatch:
    case proto::Envelope::kDecodeDone:
      return attempt.decode == worker.id;
    case proto::Envelope::kAttemptFailed:
    case proto::Envelope::kAttemptEnded:
      return true;
    default:
      return false;
  }
}

void CoordinatorCore::on_rank_progress(Request& request, const proto::RankProgress& progress) {
  Attempt& attempt = *request.attempt;
  const double share = static_cast<double>(progress.layers_done()) / progress.layers_total();
  if (share <= attempt.progress[progress.rank()]) return;
  attempt.progress[progress.rank()] = share;
  if (request.reported) return;
  const double whole = attempt.chunks.back().end;
  PrefillProgress event{.fraction = attempt.chunks.front().begin / whole,
                        .cached_tokens = attempt.chunks.front().begin,
                        .ranks = attempt.progress};
  for (size_t rank = 0; rank < attempt.chunks.size(); ++rank)
    event.fraction += attempt.progress[rank] * attempt.chunks[rank].size() / whole;
  actions_.push_back(EmitEvent{request.id, std::move(event)});
}

void CoordinatorCore::on_prompt_scores(Request& request, const Worker& worker, const proto::PromptScores& part,
                                       Time now) {
  Attempt& attempt = *request.attempt;
  if (!attempt.scores) return;
  if (const Result<void> added = attempt.scores->add(part, request.spec.prompt); !added)
    return fail_attempt(request, {added.error(), worker.id}, now);
  if (attempt.first_token && attempt.scores->is_complete())
    on_first_token(request, *std::exchange(attempt.first_token, std::nullopt), now);
}

// A client that asks for the log-probabilities of its prompt gets them before anything of the answer.
void CoordinatorCore::hold_first_token(Request& request, const proto::FirstToken& first, Time now) {
  Attempt& attempt = *request.attempt;
  attempt.first_token_at = now;
  if (!attempt.scores || attempt.scores->is_complete()) return on_first_token(request, first, now);
  attempt.first_token = first;
}

void CoordinatorCore::on_first_token(Request& request, const proto::FirstToken& first, Time now) {
  Attempt& attempt = *request.attempt;
  proto::Envelope forward = envelope(attempt.id);
  forward.mutable_first_token()->mutable_token()->set_id(first.token().id());  // all that it needs
  send(attempt.decode, std::move(forward));
  if (!request.reported) {
    request.reported = attempt.id;
    request.stamps.first_token = now;
    request.stamps.held = now - attempt.first_token_at;
    request.last_rank = first.timing();
    request.report.first_logits_sha256 = hex(first.logits_sha256());
    RankReport& rank = request.report.ranks.back();
    note_work(rank, first.timing(), seconds(attempt.first_token_at - request.stamps.received));
  }
  if (attempt.scores && !std::exchange(request.scored, true))
    actions_.push_back(EmitEvent{request.id, PromptEvent{attempt.scores->take()}});
  accept_tokens(request, 0, {decode(first.token())}, now);
}

// How fast this worker was, and the link behind it.
void CoordinatorCore::learn_from_rank(Attempt& attempt, const proto::RankDone& done) {
  const proto::RankTiming& timing = done.timing();
  const bool is_last = done.rank() + 1 == attempt.ranks.size();
  const TokenRange chunk = attempt.chunks[done.rank()];
  const double computed = timing.compute_seconds() + timing.sample_seconds();
  // Scoring is no part of a prefill that is planned; and how long a few tokens take, or some behind kept pages, says little of
  // what is worth planning.
  const bool teaches = !attempt.scores && !(done.rank() == 0 && attempt.kept.begin > 0) && chunk.size() >= kPageTokens;
  if (Worker* worker = registry_.find(attempt.ranks[done.rank()]); worker && teaches)
    registry_.learn(*worker, chunk, is_last, computed);
  WorkerSpeed& took = attempt.profiles[done.rank()].speed;
  took = scaled(took, computed / compute_seconds(took, chunk_work(registry_.model_cost(), chunk, is_last)));
  const auto sent = static_cast<double>(timing.kv_sent_bytes());
  if (Worker* worker = registry_.find(receiver(attempt, done.rank())))
    registry_.learn_link(*worker, sent, timing.kv_wire_seconds());
  if (!is_last && sent > 0 && timing.kv_wire_seconds() > limits::kSampleSecondsMin)
    attempt.profiles[done.rank() + 1].ingress.bytes_per_second = sent / timing.kv_wire_seconds();
}

void CoordinatorCore::count_rank(const Attempt& attempt, const proto::RankDone& done) {
  const proto::RankTiming& timing = done.timing();
  const WorkerId sender = attempt.ranks[done.rank()], receiver = this->receiver(attempt, done.rank());
  const Worker* from = registry_.find(sender);
  const Worker* to = registry_.find(receiver);
  metrics_.rank_finished({.rank = static_cast<int32_t>(done.rank()),
                          .is_last = done.rank() + 1 == attempt.ranks.size(),
                          .chunk_tokens = attempt.chunks[done.rank()].size(),
                          .compute_seconds = timing.compute_seconds(),
                          .kv_wait_seconds = timing.kv_wait_seconds(),
                          .lane_wait_seconds = timing.lane_wait_seconds(),
                          .kv_send_seconds = timing.kv_send_seconds(),
                          .kv_wire_seconds = timing.kv_wire_seconds(),
                          .total_seconds = timing.total_seconds(),
                          .kv_sent_bytes = timing.kv_sent_bytes(),
                          .kv_received_bytes = timing.kv_received_bytes(),
                          .sender = from != nullptr ? std::string_view(from->name) : "",
                          .receiver = to != nullptr ? std::string_view(to->name) : "",
                          .kv_rtt_seconds = timing.kv_rtt_seconds()},
                         hop_transport(sender, receiver));
}

void CoordinatorCore::on_rank_done(Request& request, const proto::RankDone& done, Time now) {
  Attempt& attempt = *request.attempt;
  if (attempt.scores && !request.scored && !attempt.scores->is_complete(done.rank()))
    return fail_attempt(request, {{ErrorCode::kInternal, "a rank ended before it had scored its part of the prompt"}},
                        now);
  learn_from_rank(attempt, done);
  count_rank(attempt, done);
  const bool is_last = done.rank() + 1 == attempt.ranks.size();
  const bool is_reported = !request.reported || *request.reported == attempt.id;
  if (is_last && done.kept_pages() > 0 && is_reported) request.report.cache_write_tokens = attempt.keeps_tokens;
  attempt.rank_done[done.rank()] = true;
  if (--attempt.ranks_left == 0) learn_stretch(request);
  attempt.progress[done.rank()] = 1;
  if (is_reported) {
    RankReport& rank = request.report.ranks[done.rank()];
    const double reported_at = seconds(now - request.stamps.received);
    if (!is_last) note_work(rank, done.timing(), reported_at);
    note_sending(rank, done.timing(), reported_at);
    if (attempt.ranks_left == 0 && request.reported) metrics_.chain_finished(request.report);
  }
  finish_if_ready(request, now);
}

// Of a prompt that had all workers to itself. attempt.profiles are as fast, workers and links, as they were in it: only what is
// between them counts, and a link that turned slow is no loss of every chain.
void CoordinatorCore::learn_stretch(const Request& request) {
  const Attempt& attempt = *request.attempt;
  if (!attempt.is_alone || last_started_ != request.id || attempt.scores || attempt.first_token_at == Time{0} ||
      attempt.kept.begin > 0)
    return;
  const ChainTimeline timeline = chain_timeline(registry_.model_cost(), attempt.profiles, attempt.chunks);
  stretch_.add(static_cast<int32_t>(attempt.ranks.size()), timeline.ttft_seconds,
               seconds(attempt.first_token_at - attempt.dispatched_at));
}

// The answer is known, and so is what the decode worker can keep of it.
void CoordinatorCore::key_answer(const Request& request) {
  Worker* worker = registry_.find(request.attempt->decode);
  if (!options_.prefix_cache || worker == nullptr) return;
  std::vector<TokenId> whole = request.spec.prompt;
  whole.insert(whole.end(), request.emitted.begin(), request.emitted.end());
  worker->prefixes.set_keys(request.attempt->id, keys_of(request, whole));
}

// The order of tokens: each index once, none left out, nothing behind the end.
void CoordinatorCore::accept_tokens(Request& request, size_t first_index, std::vector<SampledToken> tokens, Time now) {
  size_t index = request.attempt->base + first_index;
  if (options_.faults.double_token_index && request.attempt->base > 0) --index;
  TokensEvent event{.first_index = static_cast<int32_t>(request.emitted.size())};
  const bool was_complete = request.complete.has_value();
  for (SampledToken& token : tokens) {
    const size_t expected = request.emitted.size();
    if (request.complete || index++ < expected) continue;  // said before
    if (index - 1 > expected)
      return fail_attempt(request, {{ErrorCode::kInternal, "tokens are missing between two messages"}}, now);
    if (std::ranges::count(request.spec.stop_tokens, token.token) > 0) {
      request.complete = FinishReason::kStop;
      request.stop_token = std::move(token);
      continue;
    }
    if (!request.emitted.empty()) metrics_.inter_token(seconds(now - request.last_token_at));
    if (request.emitted.size() == 1) {
      metrics_.first_decode(seconds(now - request.last_token_at));
      request.report.marks.second_token = seconds(now - request.stamps.received);
    }
    request.last_token_at = now;
    request.emitted.push_back(token.token);
    event.tokens.push_back(std::move(token));
    if (std::ssize(request.emitted) == request.spec.max_new_tokens) request.complete = FinishReason::kLength;
  }
  if (request.complete && !was_complete) key_answer(request);
  if (!event.tokens.empty() && request.attempt->base + first_index > 0) pace_.decoded(event.tokens.size(), now);
  if (!event.tokens.empty()) actions_.push_back(EmitEvent{request.id, std::move(event)});
  finish_if_ready(request, now);
}

// Whom everything waits for: the first rank that has not said RankDone, then the decode worker.
WorkerId CoordinatorCore::awaited(const Attempt& attempt) {
  for (size_t rank = 0; rank < attempt.ranks.size(); ++rank)
    if (!attempt.rank_done[rank]) return attempt.ranks[rank];
  return attempt.decode;
}

// Long enough for the longest plan in work there: its steps hold up the others.
Duration CoordinatorCore::stall_limit(const Worker& worker) {
  double predicted = 0;
  for (const auto& [id, pages] : worker.holds) {
    const Request* request = find(id.request);
    if (request && request->attempt) predicted = std::max(predicted, request->attempt->predicted_seconds);
  }
  const double seconds_max = std::min(limits::kStallPlanFactor * predicted, limits::kReportedSecondsMax);
  return std::max<Duration>(options_.stall_timeout, from_seconds(seconds_max));
}

// A heart that beats is not work. An attempt of which nothing has been heard for its limit fails if the worker that it
// waits for did nothing else either; one that works on others gets a limit for each of them.
void CoordinatorCore::fail_stalled(Time now) {
  std::vector<RequestId> running;
  for (const auto& [id, request] : requests_)
    if (request.attempt) running.push_back(id);
  for (const RequestId id : running) {
    Request* request = find(id);
    if (request == nullptr || !request->attempt) continue;
    const Attempt& attempt = *request->attempt;
    Worker* worker = registry_.find(awaited(attempt));
    if (worker == nullptr) continue;
    const Duration silence = now - attempt.progress_at, limit = stall_limit(*worker);
    if (silence < limit) continue;
    const bool idle = now - worker->worked_at >= limit;
    if (!idle && silence < limit * (1 + worker->running())) continue;
    worker->stuck = idle;
    if (request->complete) {  // only reports are missing
      request->attempt->ranks_left = 0;
      finish_if_ready(*request, now);
      continue;
    }
    const std::string what = fmt::format("worker {} has made no progress for {:.0f} s", worker->name, seconds(silence));
    fail_attempt(*request, {{ErrorCode::kDeadlineExceeded, what}, worker->id}, now);
  }
}

// ---- failure and end ----

// submit() has checked the request: no worker's word makes it the request's fault. Numbers that overflow do so on every worker,
// and so is a grammar too ambiguous.
void CoordinatorCore::on_attempt_failed(Request& request, Worker& worker, Failure failure, Time now) {
  const bool of_grammar = failure.error.code == ErrorCode::kTooLarge && !request.spec.sampling.grammar.empty();
  if (!is_worth_a_retry(failure.error.code) && failure.error.code != ErrorCode::kInvalidModel && !of_grammar)
    failure.error.code = ErrorCode::kInternal;
  const KeptBeginning& kept = request.attempt->kept;
  if (failure.blamed == 0 && is_fault_of_worker(failure.error.code)) WorkerRegistry::note_failure(worker);
  if (failure.error.code == ErrorCode::kStale)
    worker.prefixes.forget(worker.id == request.attempt->decode ? kept.decode.prefix : kept.first.prefix);
  fail_attempt(request, std::move(failure), now);
}

void CoordinatorCore::fail_attempt(Request& request, Failure failure, Time now) {
  warn_limited("attempt", "request {} ({}{}{}), attempt {}: {}", request.id, foreign(request.spec.external_id),
               request.spec.trace_id.empty() ? "" : ", trace ", foreign(request.spec.trace_id), request.attempts,
               foreign(failure.error.message));
  metrics_.attempt_failed(failure.error.code);
  const Attempt& attempt = *request.attempt;
  const bool member = attempt.decode == failure.blamed || std::ranges::count(attempt.ranks, failure.blamed) > 0;
  if (!member) failure.blamed = 0;
  if (Worker* worker = registry_.find(failure.blamed); worker && is_fault_of_worker(failure.error.code))
    WorkerRegistry::note_failure(*worker);
  count_attempt(request, failure.error.code, now);
  end_attempt(request, failure.error.code);
  if (request.complete) return finish_if_ready(request, now);
  retry_or_give_up(request, failure, now);
}

// New tokens are progress, and so is a prefill that came further than any before; what our own absence has cost is
// nobody's failure.
void CoordinatorCore::count_attempt(Request& request, ErrorCode code, Time now) {
  const Attempt& attempt = *request.attempt;
  if (request.emitted.size() > attempt.base) {
    request.fruitless = 0;
    request.prefilled = 0;
    return;
  }
  double prefilled = 0;
  for (size_t rank = 0; rank < attempt.chunks.size(); ++rank)
    prefilled += attempt.progress[rank] * attempt.chunks[rank].size() / attempt.chunks.back().end;
  const bool further = prefilled > request.prefilled;
  request.prefilled = std::max(request.prefilled, prefilled);
  const bool own_fault = code == ErrorCode::kWorkerLost && now < forgiven_until_;
  if (!further && !own_fault) ++request.fruitless;
}

void CoordinatorCore::retry_or_give_up(Request& request, const Failure& failure, Time now) {
  if (now >= request.deadline)  // before on_tick saw it
    return end_with_error(request, {ErrorCode::kDeadlineExceeded, "the request's deadline has passed"},
                          RequestOutcome::kError, now);
  if (!is_worth_a_retry(failure.error.code)) return end_with_error(request, failure.error, RequestOutcome::kError, now);
  if (request.fruitless >= static_cast<uint32_t>(limits::kAttemptsMax) ||
      request.attempts >= static_cast<uint32_t>(limits::kAttemptsTotalMax)) {
    const std::string message = std::to_string(request.attempts) +
                                " attempts failed, the last one because: " + failure.error.message + "; try again";
    return end_with_error(request, {ErrorCode::kWorkerLost, message}, RequestOutcome::kError, now);
  }
  if (failure.blamed != 0) request.avoid.insert(failure.blamed);
  if (failure.error.code == ErrorCode::kOverloaded)
    request.not_before = now + kOverloadedPause * std::max(1u, request.fruitless);
  request.no_room_since.reset();
  waiting_.push_back(request.id);
  waiting_tokens_ += std::ssize(request.spec.prompt);
  gauges();
}

// Everybody who still holds pages of it is told; the ledger waits for their answers. A client that wants no more (a stop string,
// a cancel) may go on behind what it has got.
void CoordinatorCore::end_attempt(Request& request, ErrorCode reason) {
  if (!request.attempt) return;
  const size_t answer = reason == ErrorCode::kCancelled ? request.emitted.size() - request.attempt->base : 0;
  if (answer > 0) key_answer(request);
  const Attempt attempt = *std::exchange(request.attempt, std::nullopt);
  for (auto& [id, worker] : registry_.workers()) {
    if (!worker.holds.contains(attempt.id)) continue;
    proto::Envelope message = envelope(attempt.id);
    message.mutable_end_attempt()->set_reason(static_cast<uint32_t>(reason));
    if (id == attempt.decode) message.mutable_end_attempt()->set_tokens(static_cast<int32_t>(answer));
    actions_.push_back(SendTo{worker.peer, std::move(message)});
  }
}

// Every token is with the client. The ranks' reports are worth a short wait: they are on their way, or their worker is
// lost.
void CoordinatorCore::finish_if_ready(Request& request, Time now) {
  if (!request.complete || (request.attempt && request.attempt->ranks_left > 0)) return;
  if (request.finished_early) end_attempt(request, ErrorCode::kCancelled);
  if (!request.written) {
    request.stamps.written = request.stamps.first_token;
    close_report(request);
  }
  request.report.attempts = request.attempts;
  pace_.ended(static_cast<int32_t>(request.emitted.size()));
  record_end(request, RequestOutcome::kOk, ErrorCode::kInternal, now);
  actions_.push_back(EmitEvent{request.id, FinishedEvent{.reason = *request.complete,
                                                         .stop_token = std::move(request.stop_token),
                                                         .report = std::move(request.report),
                                                         .generated = static_cast<int32_t>(request.emitted.size()),
                                                         .total_seconds = seconds(now - request.stamps.received)}});
  forget(request.id);
}

void CoordinatorCore::end_with_error(Request& request, Error error, RequestOutcome outcome, Time now) {
  end_attempt(request, error.code);
  record_end(request, outcome, error.code, now);
  actions_.push_back(EndStream{request.id, std::move(error)});
  forget(request.id);
}

// TTFT is known: its stages, for the client and for the metrics.
void CoordinatorCore::close_report(Request& request) {
  request.written = true;
  request.report.attempts = request.attempts;
  fill_stages(request.stamps, request.last_rank, request.report);
  metrics_.first_token(request.report);
}

void CoordinatorCore::record_end(const Request& request, RequestOutcome outcome, ErrorCode code, Time now) {
  metrics_.request_finished({.outcome = outcome,
                             .reason = request.complete.value_or(FinishReason::kStop),
                             .error = code,
                             .prompt_tokens = static_cast<int32_t>(request.spec.prompt.size()),
                             .generated_tokens = static_cast<int32_t>(request.emitted.size()),
                             .total_seconds = seconds(now - request.stamps.received),
                             .attempts = request.attempts});
}

}  // namespace runahead
