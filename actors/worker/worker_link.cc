#include "actors/worker/worker_link.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log_limit.h"

namespace runahead {
namespace {

constexpr Duration kBackoffMin = std::chrono::milliseconds(50);  // a coordinator that restarts is back within a second
constexpr Duration kBackoffMax = std::chrono::seconds(1);
constexpr Duration kAbsenceReportInterval = std::chrono::minutes(1);

}  // namespace

std::optional<Duration> AbsenceReports::due(Time now) {
  if (!since_) since_ = now;
  if (now < next_) return std::nullopt;
  next_ = now + kAbsenceReportInterval;
  return now - *since_;
}

WorkerLink::WorkerLink(const WorkerEnv& env, const WorkerOptions& options, proto::Hello::Role kind, WorkerRole& role)
    : env_(env), options_(options), kind_(kind), role_(role), incarnation_(env.rng.next()) {}

Task<void> WorkerLink::run() {
  Duration backoff = kBackoffMin;
  while (!stopping_) {
    Result<std::unique_ptr<ControlPlane>> plane = co_await env_.connect(env_.clock.after(limits::kConnectTimeout));
    Error why = plane ? Error{} : plane.error();
    if (plane) {
      plane_ = std::move(*plane);
      const Result<void> served = co_await serve();
      why = served.error();
      if (registered()) backoff = kBackoffMin;
      if (peer_) plane_->disconnect(*peer_);
      peer_.reset();
      epoch_ = 0;
      if (!options_.faults.no_lease_sweep) {
        role_.end_all();
        co_await role_.all_ended();
      }
      plane_.reset();
    }
    if (why.code == ErrorCode::kInvalidConfig) co_return std::unexpected(why);
    if (stopping_ || drained()) break;
    if (const auto away = absence_.due(env_.clock.now()))
      log::warn("{}: no coordinator for {:.0f} s: {}; trying again, and saying so once a minute", options_.name,
                seconds(*away), foreign(why.message));
    // Refused: until somebody changes this worker, the coordinator or the others.
    const bool refused = why.code == ErrorCode::kIncompatible;
    if (refused) backoff = std::max<Duration>(backoff, limits::kRefusedPauseMin);
    const auto jitter = Duration(static_cast<int64_t>(env_.rng.next() % static_cast<uint64_t>(backoff.count())));
    co_await env_.clock.sleep_for(backoff / 2 + jitter / 2);
    backoff = std::min<Duration>(2 * backoff, refused ? limits::kRefusedPauseMax : kBackoffMax);
  }
  co_return Result<void>{};
}

Task<void> WorkerLink::serve() {
  lease_until_ = env_.clock.now() + limits::kConnectTimeout;  // until Welcome
  heartbeat_at_ = lease_until_;
  for (;;) {
    if (stopping_ || drained()) co_return fail(ErrorCode::kCancelled, "this worker leaves");
    // Before Welcome no heartbeat is due, and its time may have passed: a wait for it would not wait.
    const Time beat_at = registered() ? heartbeat_at_ : lease_until_;
    const Time wake_at = std::min({beat_at, lease_until_, env_.clock.now() + limits::kHeartbeatInterval});
    Result<ControlEvent> event = co_await plane_->receive({wake_at});
    if (event) {
      Result<void> handled = on_event(*event);
      CO_TRY(handled);
    } else if (event.error().code != ErrorCode::kDeadlineExceeded) {
      co_return std::unexpected(event.error());
    }
    const Time now = env_.clock.now();
    // This process did not run: what the coordinator sent meanwhile is still unread, and it was not silent.
    if (const Duration absence = now - wake_at; absence > limits::kAbsenceMin) lease_until_ += absence;
    if (now >= lease_until_) co_return fail(ErrorCode::kUnavailable, "the coordinator is silent");
    if (registered() && now >= heartbeat_at_) {
      heartbeat_at_ = now + limits::kHeartbeatInterval;
      plane_->send(*peer_, serialize(heartbeat()));
      env_.metrics.pages(env_.pool.usage());
    }
  }
}

Result<void> WorkerLink::on_event(const ControlEvent& event) {
  switch (event.kind) {
    case ControlEvent::Kind::kConnected:
      peer_ = event.peer;
      plane_->send(event.peer, serialize(hello()));
      return {};
    case ControlEvent::Kind::kDisconnected:
      peer_.reset();
      return fail(ErrorCode::kUnavailable, "the connection has ended: " + event.payload);
    case ControlEvent::Kind::kMessage:
      return on_message(TRY(parse_envelope(event.payload)));
  }
  return {};
}

Result<void> WorkerLink::on_message(const proto::Envelope& message) {
  const Time now = env_.clock.now();
  if (!registered()) {
    if (message.has_refused()) return std::unexpected(decode(message.refused().failure()).error);
    if (!message.has_welcome()) return {};  // of a coordinator that does not know us yet
    epoch_ = message.epoch();
    lease_until_ = now + limits::kLeaseDuration;
    heartbeat_at_ = now;
    log::info("{}: registered as worker {} of epoch {}", options_.name, message.welcome().worker(), epoch_);
    absence_.over();
    if (options_.on_registered) options_.on_registered();
    if (drain_until_) drain();
    return {};
  }
  if (message.epoch() != epoch_) return {};  // a coordinator that is gone: the one place where old epochs end
  lease_until_ = now + limits::kLeaseDuration;
  if (message.has_refused()) return std::unexpected(decode(message.refused().failure()).error);
  if (message.has_drain()) drain();
  if (message.request() != 0) role_.on_message(message);
  return {};
}

void WorkerLink::send(const proto::Envelope& message) {
  if (peer_ && message.epoch() == epoch_) plane_->send(*peer_, serialize(message));
}

void WorkerLink::send_failed(AttemptId id, const Failure& failure) {
  log::warn("{}: attempt {}.{} failed: {}", options_.name, id.request, id.attempt, failure.error.message);
  env_.metrics.kv_stream_failed(failure.error.code);
  proto::Envelope message = envelope(id);
  encode(failure, *message.mutable_attempt_failed()->mutable_failure());
  send(message);
}

void WorkerLink::send_ended(AttemptId id) {
  proto::Envelope message = envelope(id);
  message.mutable_attempt_ended();
  send(message);
}

void WorkerLink::drain() {
  if (!drain_until_) drain_until_ = env_.clock.now() + limits::kDrainTimeout;
  proto::Envelope message = envelope({.epoch = epoch_});
  message.mutable_drain();
  if (registered()) send(message);
}

bool WorkerLink::drained() const { return drain_until_ && (role_.running() == 0 || env_.clock.now() >= *drain_until_); }

void WorkerLink::stop() {
  stopping_ = true;
  if (!drain_until_) drain();  // a goodbye on the way out: what holds nothing is no loss
  if (peer_) plane_->disconnect(*peer_);  // ends the wait for its next message
}

proto::Envelope WorkerLink::hello() const {
  proto::Envelope message;
  proto::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(kMessagesVersion);
  hello.set_role(kind_);
  hello.set_incarnation(incarnation_);
  hello.set_fingerprint(env_.engine.fingerprint());
  hello.set_compute(env_.engine.compute_name());
  hello.set_kv_transport(env_.kv.name());
  hello.set_kv_address(env_.kv.address());
  hello.set_pages_total(env_.pool.usage().total);
  hello.set_page_bytes(env_.pool.page_bytes());
  hello.set_num_layers(env_.engine.shape().num_layers);
  hello.set_context_len(env_.engine.shape().context_len);
  hello.set_device(options_.device);
  hello.set_seconds_per_token(options_.seconds_per_token);
  hello.set_seconds_per_pair(options_.seconds_per_pair);
  hello.set_name(options_.name);
  hello.set_attempts_max(static_cast<uint32_t>(options_.attempts_max));
  return message;
}

proto::Envelope WorkerLink::heartbeat() const {
  proto::Envelope message = envelope({.epoch = epoch_});
  proto::Heartbeat& heartbeat = *message.mutable_heartbeat();
  const KvPool::Usage usage = env_.pool.usage();
  heartbeat.set_pages_free(usage.idle());
  heartbeat.set_pages_leased(usage.leased);
  heartbeat.set_pages_quarantined(usage.quarantined);
  heartbeat.set_running(static_cast<uint32_t>(role_.running()));
  heartbeat.set_work_done(*env_.work_done);
  return message;
}

}  // namespace runahead
