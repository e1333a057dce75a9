#include "actors/coordinator_core.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "base/log.h"
#include "model/sampler.h"

namespace runahead {

CoordinatorCore::CoordinatorCore(CoordinatorOptions options, Rng& rng, MetricsSink& metrics)
    : options_(std::move(options)), rng_(rng), metrics_(metrics),
      registry_(options_.shape, options_.fingerprint, options_.kv_transport) {}

// ---- membership
// ------------------------------------------------------------------------------------------------------

void CoordinatorCore::on_connected(PeerId peer, Time now) {
  strangers_.emplace(peer, now);
  if (strangers_.size() <= static_cast<size_t>(limits::kWorkersMax)) return;
  const auto oldest = std::ranges::min_element(strangers_, {}, [](const auto& entry) { return entry.second; });
  actions_.push_back(DropPeer{oldest->first});
  strangers_.erase(oldest);
}

void CoordinatorCore::on_disconnected(PeerId peer, Time now) {
  strangers_.erase(peer);
  if (const Worker* worker = registry_.by_peer(peer)) worker_lost(worker->id, "its connection has ended", now);
}

void CoordinatorCore::on_message(PeerId peer, const proto::Envelope& message, Time now) {
  Worker* worker = registry_.by_peer(peer);
  if (worker == nullptr) {
    if (message.has_hello() && strangers_.contains(peer)) on_hello(peer, message.hello(), now);
    return;  // of a worker that is lost: it will notice, and come back as a new one
  }
  worker->heard_at = now;
  if (message.epoch() != options_.epoch) return;
  if (message.has_heartbeat()) worker->pages_free_reported = message.heartbeat().pages_free();
  if (message.has_drain()) worker->draining = true;
  if (message.request() != 0) on_attempt_message(*worker, message, now);
}

void CoordinatorCore::on_hello(PeerId peer, const proto::Hello& hello, Time now) {
  if (const Worker* old = registry_.by_incarnation(hello.incarnation()))
    worker_lost(old->id, "it has come back over a new connection", now);
  const Result<Worker*> joined = registry_.join(peer, hello, now);
  proto::Envelope reply = envelope({.epoch = options_.epoch});
  if (!joined) {
    log::warn("refused worker {}: {}", hello.name(), joined.error().message);
    encode(Failure{joined.error()}, *reply.mutable_refused()->mutable_failure());
    actions_.push_back(SendTo{peer, std::move(reply)});
    return;  // it disconnects, or is dropped as a stranger
  }
  strangers_.erase(peer);
  proto::Welcome& welcome = *reply.mutable_welcome();
  welcome.set_worker((*joined)->id);
  welcome.set_lease_ms(static_cast<uint32_t>(std::chrono::milliseconds(limits::kLeaseDuration).count()));
  welcome.set_heartbeat_ms(static_cast<uint32_t>(limits::kHeartbeatInterval.count()));
  actions_.push_back(SendTo{peer, std::move(reply)});
  log::info("worker {} joined: {} ({}, {})", (*joined)->id, hello.name(), (*joined)->is_prefill ? "prefill" : "decode",
            hello.device());
  metrics_.workers_changed(view(now));
}

void CoordinatorCore::worker_lost(WorkerId id, const std::string& why, Time now) {
  const Worker* worker = registry_.find(id);
  log::warn("worker {} ({}) is lost: {}", id, worker->name, why);
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

void CoordinatorCore::on_tick(Time now) {
  for (const WorkerId id : registry_.lost(now)) {
    actions_.push_back(DropPeer{registry_.find(id)->peer});
    worker_lost(id, "it was silent for its whole lease", now);
  }
  for (auto it = strangers_.begin(); it != strangers_.end();) {
    if (now - it->second < limits::kConnectTimeout) {
      ++it;
      continue;
    }
    actions_.push_back(DropPeer{it->first});
    it = strangers_.erase(it);
  }
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
  if (now < heartbeat_at_) return;
  heartbeat_at_ = now + limits::kHeartbeatInterval;
  for (const auto& [id, worker] : registry_.workers()) {
    proto::Envelope message = envelope({.epoch = options_.epoch});
    message.mutable_heartbeat();
    actions_.push_back(SendTo{worker.peer, std::move(message)});
  }
  metrics_.workers_changed(view(now));
}

// ---- admission
// -------------------------------------------------------------------------------------------------------

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
  if (request.strategy != Strategy::kByHand) return {};
  const Result<Partition> partition = partition_by_hand(static_cast<int32_t>(request.prompt.size()), request.cuts);
  return partition ? Result<void>{} : std::unexpected(partition.error());
}

// Is there anybody who could ever do it?
Result<void> CoordinatorCore::check_room(const InferenceRequest& request) const {
  int64_t prefill_pages = 0, decode_pages = 0;
  for (const auto& [id, worker] : registry_.workers()) {
    if (worker.draining) continue;
    int64_t& most = worker.is_prefill ? prefill_pages : decode_pages;
    most = std::max(most, worker.pages_total);
  }
  if (prefill_pages == 0)
    return fail(ErrorCode::kUnavailable, "no prefill worker is connected; start one and try again");
  if (decode_pages == 0) return fail(ErrorCode::kUnavailable, "no decode worker is connected; start one and try again");
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  if (registry_.pages_for_tokens(prompt) <= prefill_pages &&
      registry_.pages_for_tokens(prompt + request.max_new_tokens) <= decode_pages)
    return {};
  return fail(ErrorCode::kTooLarge,
              "no worker has K/V memory for a request of this length; shorten it, or start workers "
              "with more K/V memory",
              "prompt");
}

// A guess at when the queue is empty, for Retry-After: all waiting tokens through all prefill workers, as if linear.
double CoordinatorCore::predicted_wait_seconds() const {
  double tokens_per_second = 0;
  for (const auto& [id, worker] : registry_.workers())
    if (worker.is_prefill) tokens_per_second += 1 / worker.speed.speed().a;
  return tokens_per_second > 0 ? static_cast<double>(waiting_tokens_) / tokens_per_second : 0;
}

Result<RequestId> CoordinatorCore::submit(InferenceRequest spec, Time now) {
  Result<void> allowed = check_request(spec);
  if (allowed && draining_) allowed = fail(ErrorCode::kUnavailable, "the cluster is shutting down; try another one");
  if (allowed) allowed = check_room(spec);
  const auto tokens = static_cast<int64_t>(spec.prompt.size());
  if (allowed &&
      (waiting_.size() >= limits::kQueuedRequestsMax || waiting_tokens_ + tokens > limits::kQueuedTokensMax)) {
    const double seconds = std::clamp(std::ceil(predicted_wait_seconds()), 1.0, 60.0);
    allowed =
        fail(ErrorCode::kOverloaded, "the queue is full; try again later", std::to_string(static_cast<int>(seconds)));
  }
  if (!allowed) {
    metrics_.request_rejected(allowed.error().code);
    return std::unexpected(allowed.error());
  }
  const RequestId id = ++last_request_;
  const Duration limit = spec.deadline > Duration{0} ? std::min<Duration>(spec.deadline, limits::kDeadlineMax)
                                                     : Duration(limits::kRequestDeadline);
  Request request{.id = id, .spec = std::move(spec), .deadline = now + limit};
  const bool stamped = request.spec.received_at > Time{0} && request.spec.received_at <= now;
  request.stamps = {.received = stamped ? request.spec.received_at : now,
                    .tokenize = stamped ? request.spec.tokenize_time : Duration{0},
                    .submitted = now};
  requests_.emplace(id, std::move(request));
  waiting_.push_back(id);
  waiting_tokens_ += tokens;
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

// ---- helpers
// ---------------------------------------------------------------------------------------------------------

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
  metrics_.queue_changed({.running = static_cast<int32_t>(requests_.size()) - waiting, .waiting = waiting,
                          .queued_prompt_tokens = waiting_tokens_});
}

ClusterView CoordinatorCore::view(Time now) const {
  ClusterView view{.epoch = options_.epoch,
                   .fingerprint = registry_.fingerprint(),
                   .compute = registry_.compute(),
                   .context_len = options_.shape.context_len,
                   .waiting = static_cast<int32_t>(waiting_.size()),
                   .queued_prompt_tokens = waiting_tokens_,
                   .draining = draining_};
  view.running = static_cast<int32_t>(requests_.size()) - view.waiting;
  for (const auto& [id, worker] : registry_.workers()) {
    const char* state = worker.draining ? "draining" : WorkerRegistry::is_suspect(worker, now) ? "suspect" : "ready";
    view.workers.push_back({.id = id,
                            .name = worker.name,
                            .role = worker.is_prefill ? "prefill" : "decode",
                            .device = worker.device,
                            .transport = registry_.kv_transport(),
                            .state = state,
                            .pages_total = worker.pages_total,
                            .pages_free = worker.pages_free_reported,
                            .running = worker.running(),
                            .tokens_per_second = 1 / worker.speed.speed().a});
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
