#include "actors/coordinator/coordinator_core.h"

#include <algorithm>
#include <cmath>

#include "actors/coordinator/peer_checks.h"
#include "base/limits.h"
#include "base/log_limit.h"
#include "model/sampler.h"

namespace runahead {
namespace {

// Log-probabilities of a prompt take nearly as long again as its prefill (ADR 17: 1.6 to 1.8 times in all).
constexpr double kScoringStretch = 2;

}  // namespace

CoordinatorCore::CoordinatorCore(CoordinatorOptions options, Rng& rng, CoordinatorSink& metrics)
    : options_(std::move(options)), rng_(rng), metrics_(metrics), registry_(options_) {}

// ---- membership ----

void CoordinatorCore::on_connected(PeerId peer, Time now, std::string_view certified_role) {
  unregistered_.emplace(peer, Stranger{now, std::string(certified_role)});
  if (unregistered_.size() <= limits::kUnregisteredPeersMax) return;
  const auto oldest = std::ranges::min_element(unregistered_, {}, [](const auto& entry) { return entry.second.since; });
  actions_.push_back(DropPeer{oldest->first});
  unregistered_.erase(oldest);
}

void CoordinatorCore::on_disconnected(PeerId peer, Time now) {
  unregistered_.erase(peer);
  if (const Worker* worker = registry_.by_peer(peer)) worker_lost(worker->id, "its connection has ended", now);
}

void CoordinatorCore::on_message(PeerId peer, const proto::Envelope& message, Time now) {
  Worker* worker = registry_.by_peer(peer);
  if (worker == nullptr) {
    if (message.has_hello() && unregistered_.contains(peer)) return on_hello(peer, message.hello(), now);
    unregistered_.erase(peer);  // it does not say who it is, or was lost: then it comes back as a new one
    actions_.push_back(DropPeer{peer});
    return;
  }
  if (const Result<void> possible = check_report(message, options_.shape); !possible) {
    actions_.push_back(DropPeer{peer});
    return worker_lost(worker->id, possible.error().message, now);
  }
  worker->heard_at = now;
  if (message.epoch() != options_.epoch) return;
  if (message.has_heartbeat()) {
    worker->pages_free_reported = std::min(message.heartbeat().pages_free(), worker->pages_total);
    if (std::exchange(worker->work_done, message.heartbeat().work_done()) != message.heartbeat().work_done())
      WorkerRegistry::note_work(*worker, now);
    if (WorkerRegistry::has_lost_count(*worker, message.heartbeat().running(), now)) {
      actions_.push_back(DropPeer{peer});
      return worker_lost(worker->id, "it has nothing of what it was given", now);
    }
  }
  if (message.has_drain()) worker->draining = true;
  if (message.request() != 0) on_attempt_message(*worker, message, now);
}

void CoordinatorCore::on_hello(PeerId peer, const proto::Hello& hello, Time now) {
  const Stranger stranger = unregistered_.extract(peer).mapped();
  Result<void> fits = check_certified(hello, stranger.certified_role);
  if (fits) fits = registry_.check(hello);
  if (!fits) {
    warn_limited("refused worker", "refused worker {}: {}", foreign(hello.name()), fits.error().message);
    return refuse(peer, fits.error());
  }
  if (const Worker* old = registry_.by_incarnation(hello.incarnation())) {
    actions_.push_back(DropPeer{old->peer});
    worker_lost(old->id, "it has come back over a new connection", now);
  }
  const Worker& joined = registry_.join(peer, hello, now);
  actions_.push_back(AdmitPeer{peer});
  proto::Envelope reply = envelope({.epoch = options_.epoch});
  proto::Welcome& welcome = *reply.mutable_welcome();
  welcome.set_worker(joined.id);
  welcome.set_lease_ms(static_cast<uint32_t>(std::chrono::milliseconds(limits::kLeaseDuration).count()));
  welcome.set_heartbeat_ms(static_cast<uint32_t>(limits::kHeartbeatInterval.count()));
  actions_.push_back(SendTo{peer, std::move(reply)});
  info_limited("joined", "worker {} joined: {} ({}, {})", joined.id, joined.name,
               joined.is_prefill ? "prefill" : "decode", joined.device);
  drop_outvoted(now);
  if (const std::string why = registry_.disagreement(); !why.empty())
    warn_limited("disagreement", "not ready: {}", why);
  metrics_.workers_changed(view(now));
}

// The peer gets the reason before it is dropped, and may try again.
void CoordinatorCore::refuse(PeerId peer, const Error& why) {
  proto::Envelope reply = envelope({.epoch = options_.epoch});
  encode(Failure{why}, *reply.mutable_refused()->mutable_failure());
  actions_.push_back(SendTo{peer, std::move(reply)});
  actions_.push_back(DropPeer{peer});
}

void CoordinatorCore::drop_outvoted(Time now) {
  for (const auto& [id, why] : registry_.outvoted()) {
    refuse(registry_.find(id)->peer, why);
    worker_lost(id, why.message, now);
  }
}

void CoordinatorCore::worker_lost(WorkerId id, const std::string& why, Time now) {
  const Worker* worker = registry_.find(id);
  if (worker->draining && worker->holds.empty())  // it has said goodbye, and nothing of ours was with it
    log::info("worker {} ({}) has left", id, worker->name);
  else warn_limited("lost", "worker {} ({}) is lost: {}", id, worker->name, why);
  const std::string name = worker->name;
  const std::map<AttemptId, int64_t> holds = std::move(registry_.find(id)->holds);
  registry_.remove(id);
  // A rank that has said RankDone holds nothing, and is not missed.
  for (const auto& [attempt, pages] : holds) {
    Request* request = find(attempt.request);
    if (request && request->attempt && request->attempt->id == attempt)
      fail_attempt(*request, {{ErrorCode::kWorkerLost, "worker " + name + " was lost: " + why}, id}, now);
  }
  metrics_.workers_changed(view(now));
}

void CoordinatorCore::on_absence(Duration absence, Time now) {
  log::warn("this process did not run for {:.1f} s: is the machine overloaded? Nobody is blamed for it",
            seconds(absence));
  forgiven_until_ = now + limits::kLeaseDuration;
  registry_.forgive(absence);
  for (auto& [peer, stranger] : unregistered_) stranger.since += absence;
  for (auto& [id, request] : requests_) {
    if (request.attempt) request.attempt->progress_at += absence;
    if (request.no_room_since) *request.no_room_since += absence;
  }
}

void CoordinatorCore::on_tick(Time now) {
  sweep_silent(now);
  leave_suspects(now);
  end_late(now);
  fail_stalled(now);
  end_hopeless(now);
  send_heartbeats(now);
}

void CoordinatorCore::sweep_silent(Time now) {
  for (const WorkerId id : registry_.lost(now)) {
    actions_.push_back(DropPeer{registry_.find(id)->peer});
    worker_lost(id, "it was silent for its whole lease", now);
  }
  for (auto it = unregistered_.begin(); it != unregistered_.end();) {
    if (now - it->second.since < limits::kConnectTimeout) {
      ++it;
      continue;
    }
    actions_.push_back(DropPeer{it->first});
    it = unregistered_.erase(it);
  }
}

// A worker that is silent may be frozen, and its lease is twice as long as what makes it a suspect. What it holds is begun anew
// without it where there is somebody else for its part; once a request, for heartbeats of a busy machine are late as well.
void CoordinatorCore::leave_suspects(Time now) {
  for (const auto& [id, suspect] : registry_.workers()) {
    if (!WorkerRegistry::is_suspect(suspect, now) || !registry_.has_other(suspect, now)) continue;
    const std::map<AttemptId, int64_t> holds = suspect.holds;
    for (const auto& [attempt, pages] : holds) {
      Request* request = find(attempt.request);
      if (!request || request->complete || !request->attempt || request->attempt->id != attempt) continue;
      if (std::exchange(request->left_suspect, true)) continue;
      fail_attempt(*request, {{ErrorCode::kWorkerLost, "worker " + suspect.name + " is silent"}, id}, now);
    }
  }
}

void CoordinatorCore::end_late(Time now) {
  std::vector<RequestId> late;
  for (const auto& [id, request] : requests_)
    if (now >= request.deadline) late.push_back(id);
  for (const RequestId id : late) {
    Request& request = *find(id);
    if (request.complete && request.attempt) request.attempt->ranks_left = 0;  // reports that never came
    finish_if_ready(request, now);
    if (Request* left = find(id))
      end_with_error(*left, {ErrorCode::kDeadlineExceeded, "the request's deadline has passed"}, RequestOutcome::kError,
                     now);
  }
}

// Requests that wait for workers which could ever take them.
void CoordinatorCore::end_hopeless(Time now) {
  const std::vector<RequestId> waiting = waiting_;
  for (const RequestId id : waiting) {
    Request& request = *find(id);
    const Result<void> room = check_room(request.spec, request.emitted.size());
    if (room) {
      request.no_room_since.reset();
    } else if (!request.no_room_since) {
      request.no_room_since = now;
    } else if (now - *request.no_room_since >= limits::kNoRoomTimeout) {
      end_with_error(request, room.error(), RequestOutcome::kError, now);
    }
  }
}

void CoordinatorCore::send_heartbeats(Time now) {
  if (now < heartbeat_at_) return;
  heartbeat_at_ = now + limits::kHeartbeatInterval;
  for (const auto& [id, worker] : registry_.workers()) {
    proto::Envelope message = envelope({.epoch = options_.epoch});
    message.mutable_heartbeat();
    actions_.push_back(SendTo{worker.peer, std::move(message)});
  }
  metrics_.workers_changed(view(now));
}

// ---- admission ----

Result<void> CoordinatorCore::check_request(const InferenceRequest& request) const {
  const auto outside = [&](TokenId token) { return token < 0 || token >= options_.shape.vocab_size; };
  if (request.prompt.empty())
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty; send at least one token", "prompt");
  if (request.max_new_tokens < 1) return fail(ErrorCode::kInvalidArgument, "ask for at least one token", "max_tokens");
  const int64_t wanted = std::ssize(request.prompt) + int64_t{request.max_new_tokens};
  if (wanted > options_.shape.context_len)
    return fail(ErrorCode::kContextOverflow,
                "this model's context is " + std::to_string(options_.shape.context_len) + " tokens; the prompt has " +
                    std::to_string(request.prompt.size()) + " and " + std::to_string(request.max_new_tokens) +
                    " more are asked for: shorten one of them",
                "prompt");
  if (std::ranges::any_of(request.prompt, outside))
    return fail(ErrorCode::kInvalidArgument, "a prompt token is outside the vocabulary", "prompt");
  TRY(validate(request.sampling, options_.shape.vocab_size));
  if (const int32_t top = request.prompt_logprobs.value_or(0); top < 0 || top > limits::kTopLogprobsMax)
    return fail(ErrorCode::kInvalidArgument,
                "log-probabilities must be 0 to " + std::to_string(limits::kTopLogprobsMax), "logprobs");
  if (request.strategy != Strategy::kByHand) return {};
  const Result<Partition> partition = partition_by_hand(static_cast<int32_t>(request.prompt.size()), request.cuts);
  return partition ? Result<void>{} : std::unexpected(partition.error());
}

// Is there anybody who could ever do it? `generated`: tokens that the client has got already.
Result<void> CoordinatorCore::check_room(const InferenceRequest& request, size_t generated) const {
  int64_t prefill_pages = 0, decode_pages = 0;
  for (const auto& [id, worker] : registry_.workers()) {
    if (worker.draining || worker.stuck) continue;
    int64_t& most = worker.is_prefill ? prefill_pages : decode_pages;
    most = std::max(most, worker.pages_total);
  }
  if (prefill_pages == 0)
    return fail(ErrorCode::kUnavailable, "no prefill worker is connected and working; start one and try again");
  if (decode_pages == 0)
    return fail(ErrorCode::kUnavailable, "no decode worker is connected and working; start one and try again");
  if (!registry_.agreed())
    return fail(ErrorCode::kUnavailable,
                "prefill and decode workers run unlike compute modes or transports; start all with the same "
                "--compute and --transport");
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  const auto whole = prompt + static_cast<int32_t>(generated);
  const ModelShape& shape = options_.shape;
  const bool prefill_fits = whole_lease(shape.num_layers, whole).own_pages() <= prefill_pages ||
                            (!shape.windows.empty() && could_have_room(request, whole));
  if (prefill_fits &&
      sequence_lease(shape, prompt, prompt + request.max_new_tokens, 0, false).own_pages() <= decode_pages)
    return {};
  return fail(ErrorCode::kTooLarge, "no worker has K/V memory for a prompt of " + std::to_string(prompt) +
                                        " tokens and an answer of up to " + std::to_string(request.max_new_tokens) +
                                        ": there is room for a prompt of " +
                                        std::to_string(prefill_pages / shape.num_layers * kPageTokens) + " and for " +
                                        std::to_string(registry_.tokens_in(decode_pages)) +
                                        " with its answer; ask for less, or start workers with more K/V memory");
}

std::vector<WorkerProfile> CoordinatorCore::prefill_profiles() const {
  std::vector<WorkerProfile> profiles;
  for (const auto& [id, worker] : registry_.workers())
    if (worker.is_prefill && !worker.draining) profiles.push_back({registry_.speed_of(worker), worker.ingress.speed()});
  return profiles;
}

// Of the prefill of a request: what is left until its first token, if the workers had nothing else.
double CoordinatorCore::prefill_left(const Request& request) {
  if (!request.emitted.empty()) return 0;
  return request.service_seconds * (request.attempt ? 1 - std::ranges::min(request.attempt->progress) : 1);
}

// Of prefill that goes before a request of this order.
double CoordinatorCore::seconds_before(LaneOrder order) const {
  double wait = 0;
  for (const auto& [id, request] : requests_)
    if (request.order < order) wait += prefill_left(request);
  return wait;
}

std::unexpected<Error> CoordinatorCore::refuse_now(std::string why) const {
  const double retry = std::clamp(std::ceil(predicted_wait_seconds()), 1.0, 60.0);
  return overloaded(std::move(why), static_cast<int>(retry));
}

// Is there a place in the queue? Before anything is worked out for the request: under overload most come for nothing.
Result<void> CoordinatorCore::check_queue(int64_t tokens) const {
  if (waiting_.size() < limits::kQueuedRequestsMax && waiting_tokens_ + tokens <= limits::kQueuedTokensMax) return {};
  return refuse_now("the queue is full; try again later");
}

// And would its turn come soon enough?
Result<void> CoordinatorCore::check_wait(LaneOrder order) const {
  if (requests_.size() < limits::kQueueWaitFrom) return {};
  const double wait = seconds_before(order);
  if (wait <= seconds(options_.queue_wait)) return {};
  return refuse_now(
      fmt::format("the first token would be about {:.0f} s away, at most {:.0f} s are waited here; try again later",
                  wait, seconds(options_.queue_wait)));
}

// A guess at when the queue is empty, for Retry-After: what is left of every request's prefill, and then of its answer.
// The two overlap on machines of their own; on one machine they share its cores, and too late is better than too soon.
double CoordinatorCore::predicted_wait_seconds() const {
  double wait = 0;
  for (const auto& [id, request] : requests_) {
    wait += prefill_left(request);
    wait += pace_.expected_seconds(request.spec.max_new_tokens - static_cast<int32_t>(request.emitted.size()));
  }
  return wait;
}

// What is left behind the first columns of a prompt, on all workers.
double CoordinatorCore::seconds_behind(int32_t columns, int32_t tokens) const {
  const auto seconds_of = [&, profiles = prefill_profiles()](int32_t count) {
    return service_seconds(registry_.model_cost(), profiles, count);
  };
  if (columns == 0) return seconds_of(tokens);
  const int32_t kept = columns * kPageTokens;
  return std::max(seconds_of(tokens) - seconds_of(kept), seconds_of(tokens - kept));
}

// On all workers, without what one of them has already.
double CoordinatorCore::prefill_seconds(const Request& request) const {
  const auto tokens = static_cast<int32_t>(request.spec.prompt.size());
  int32_t kept = 0;
  for (const auto& [id, worker] : registry_.workers())
    kept = std::max(kept, worker.prefixes.find(request.keys, (tokens - 1) / kPageTokens).columns);
  return seconds_behind(may_begin_later(request) ? kept : 0, tokens);
}

Result<RequestId> CoordinatorCore::submit(InferenceRequest spec, Time now) {
  Result<void> allowed = check_request(spec);
  if (allowed && draining_) allowed = fail(ErrorCode::kUnavailable, "the cluster is shutting down; try another one");
  if (allowed) allowed = check_room(spec);
  const auto tokens = static_cast<int64_t>(spec.prompt.size());
  if (allowed) allowed = check_queue(tokens);
  if (!allowed) return std::unexpected(allowed.error());
  const RequestId id = ++last_request_;
  const Duration limit = spec.deadline > Duration{0} ? std::min<Duration>(spec.deadline, limits::kDeadlineMax)
                                                     : Duration(limits::kRequestDeadline);
  Request request{.id = id, .spec = std::move(spec), .deadline = now + limit};
  const bool stamped = request.spec.received_at > Time{0} && request.spec.received_at <= now;
  request.stamps = {.received = stamped ? request.spec.received_at : now,
                    .tokenize = stamped ? request.spec.tokenize_time : Duration{0},
                    .submitted = now};
  if (options_.prefix_cache) request.keys = page_keys(request.spec.cache_salt, request.spec.prompt);
  request.service_seconds = prefill_seconds(request);
  if (request.spec.prompt_logprobs) request.service_seconds *= kScoringStretch;
  // What came together is one piece of work: each part alone would be due as soon as a short prompt.
  const auto whole = static_cast<double>(std::max(request.spec.batch_tokens, tokens));
  request.order = lane_order(now, request.service_seconds * whole / static_cast<double>(tokens), id);
  TRY(check_wait(request.order));
  requests_.emplace(id, std::move(request));
  waiting_.push_back(id);
  waiting_tokens_ += tokens;
  metrics_.request_accepted();
  gauges();
  return id;
}

void CoordinatorCore::finish(RequestId id, Time now) {
  Request* request = find(id);
  if (request == nullptr || request->complete) return;
  if (request->emitted.empty()) return cancel(id, now);
  request->complete = FinishReason::kStop;
  request->finished_early = true;
  finish_if_ready(*request, now);
}

void CoordinatorCore::cancel(RequestId id, Time now) {
  if (Request* request = find(id))
    end_with_error(*request, {ErrorCode::kCancelled, "the client has gone away"}, RequestOutcome::kCancelled, now);
}

void CoordinatorCore::first_chunk_written(RequestId id, Time now) {
  Request* request = find(id);
  if (request == nullptr || !request->reported || request->written) return;
  request->stamps.written = now;
  close_report(*request);
}

void CoordinatorCore::end_all(Error why, Time now) {
  std::vector<RequestId> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  for (const RequestId id : ids) end_with_error(*find(id), why, RequestOutcome::kError, now);
}

// ---- helpers ----

CoordinatorCore::Request* CoordinatorCore::find(RequestId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : &found->second;
}

void CoordinatorCore::forget(RequestId id) {
  if (std::erase(waiting_, id) > 0) waiting_tokens_ -= std::ssize(find(id)->spec.prompt);
  requests_.erase(id);
  gauges();
}

void CoordinatorCore::send(WorkerId id, proto::Envelope message) {
  if (const Worker* worker = registry_.find(id)) actions_.push_back(SendTo{worker->peer, std::move(message)});
}

void CoordinatorCore::gauges() {
  const auto waiting = static_cast<int32_t>(waiting_.size());
  metrics_.queue_changed({.running = static_cast<int32_t>(requests_.size()) - waiting,
                          .waiting = waiting,
                          .queued_prompt_tokens = waiting_tokens_});
}

ClusterView CoordinatorCore::view(Time now) const {
  ClusterView view{.epoch = options_.epoch,
                   .fingerprint = registry_.fingerprint(),
                   .compute = registry_.compute(),
                   .context_len = options_.shape.context_len,
                   .disagreement = registry_.disagreement(),
                   .waiting = static_cast<int32_t>(waiting_.size()),
                   .queued_prompt_tokens = waiting_tokens_,
                   .draining = draining_};
  view.running = static_cast<int32_t>(requests_.size()) - view.waiting;
  for (const auto& [id, worker] : registry_.workers()) {
    if (!worker.is_prefill && !worker.draining)
      view.kv_tokens = std::max(view.kv_tokens, registry_.tokens_in(worker.pages_total));
    const char* state = worker.draining                           ? "draining"
                        : WorkerRegistry::is_suspect(worker, now) ? "suspect"
                        : worker.stuck                            ? "stuck"
                        : !worker.agreed                          ? "waiting"
                                                                  : "ready";
    view.workers.push_back({.id = id,
                            .name = worker.name,
                            .role = worker.is_prefill ? "prefill" : "decode",
                            .device = worker.device,
                            .transport = worker.kv_transport,
                            .state = state,
                            .pages_total = worker.pages_total,
                            .pages_free = worker.pages_free_reported,
                            .running = worker.running(),
                            .tokens_per_second = 1 / registry_.speed_of(worker).seconds_per_token,
                            .link_bytes_per_second =
                                WorkerRegistry::is_link_measured(worker) ? worker.ingress.speed().bytes_per_second : 0,
                            .silent_seconds = seconds(now - worker.heard_at)});
  }
  return view;
}

bool ClusterView::ready() const {
  bool prefill = false, decode = false;
  for (const WorkerView& worker : workers) {
    if (worker.state != "ready") continue;
    prefill |= worker.role == "prefill";
    decode |= worker.role == "decode";
  }
  return prefill && decode && !draining;
}

}  // namespace runahead
