#include "actors/coordinator/coordinator.h"

#include <map>

#include "actors/coordinator/coordinator_core.h"
#include "actors/coordinator/token_stream.h"
#include "base/limits.h"
#include "base/log_limit.h"

namespace runahead {
namespace {

constexpr Duration kTick =
    std::chrono::milliseconds(50);  // deadlines and leases are seconds; 20 looks a second cost nothing

}  // namespace

class Coordinator::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(CoordinatorEnv env, CoordinatorOptions options)
      : env_(std::move(env)), core_(std::move(options), env_.rng, env_.metrics) {}

  asio::awaitable<void> run();
  void stop() { stopping_ = true; }
  asio::awaitable<void> drain();
  void close_streams();

  Result<std::shared_ptr<TokenStream>> submit(InferenceRequest request);
  void finish(RequestId id);
  void cancel(RequestId id);
  void first_chunk_written(RequestId id);
  SpeedMemory speeds() const { return core_.speeds(); }
  ClusterView cluster() const { return core_.view(env_.clock.now()); }

 private:
  void on_event(const ControlEvent& event, Time now);
  void settle();
  void perform();
  void perform(SendTo& action) { env_.control.send(action.peer, serialize(action.message)); }
  void perform(DropPeer& action) { env_.control.disconnect(action.peer); }
  void perform(AdmitPeer& action) { env_.control.admit(action.peer); }
  void perform(EmitEvent& action);
  void perform(EndStream& action);

  CoordinatorEnv env_;
  CoordinatorCore core_;
  std::map<RequestId, std::shared_ptr<TokenQueue>> streams_;  // shared with the gateway's ends
  std::vector<RequestId> too_slow_;                           // readers that are to be cancelled
  Time tick_at_{0};
  Time heard_at_{0};  // when the loop last turned
  bool stopping_ = false;
};

namespace {

// The gateway's end. Dropping it ends the request.
class StreamEnd final : public TokenStream {
 public:
  StreamEnd(std::shared_ptr<TokenQueue> queue, std::function<void()> finish, std::function<void()> cancel,
            std::function<void()> written)
      : queue_(std::move(queue)),
        finish_(std::move(finish)),
        cancel_(std::move(cancel)),
        written_(std::move(written)) {}
  ~StreamEnd() override { cancel(); }

  Task<StreamEvent> next(Deadline deadline) override { return TokenQueue::next(queue_, deadline); }
  bool ended() const override { return queue_->ended(); }
  void finish() override {
    if (!queue_->ended()) finish_();
  }
  void cancel() override {
    if (!queue_->ended()) cancel_();
  }
  void first_chunk_written() override { written_(); }

 private:
  std::shared_ptr<TokenQueue> queue_;
  std::function<void()> finish_, cancel_, written_;  // hold the coordinator weakly: it may be gone
};

}  // namespace

asio::awaitable<void> Coordinator::Impl::run() {
  while (!stopping_) {
    const Result<ControlEvent> event = co_await env_.control.receive({env_.clock.now() + kTick});
    const Time now = env_.clock.now();
    // receive() returns after a tick at the latest: the loop was held up, and what was sent meanwhile is still unread.
    if (const Duration absence = now - heard_at_ - kTick; heard_at_ > Time{0} && absence > limits::kAbsenceMin)
      core_.on_absence(absence, now);
    heard_at_ = now;
    if (event) on_event(*event, now);
    else if (event.error().code != ErrorCode::kDeadlineExceeded) break;
    if (now >= tick_at_) {
      tick_at_ = now + kTick;
      core_.on_tick(now);
    }
    settle();
  }
  core_.end_all({ErrorCode::kUnavailable, "the coordinator has stopped; try again"}, env_.clock.now());
  perform();
}

void Coordinator::Impl::on_event(const ControlEvent& event, Time now) {
  switch (event.kind) {
    case ControlEvent::Kind::kConnected:
      return core_.on_connected(event.peer, now, event.payload);
    case ControlEvent::Kind::kDisconnected:
      return core_.on_disconnected(event.peer, now);
    case ControlEvent::Kind::kMessage:
      break;
  }
  const Result<proto::Envelope> message = parse_envelope(event.payload);
  if (message) return core_.on_message(event.peer, *message, now);
  warn_limited("unreadable", "dropping peer {}: {}", event.peer, message.error().message);
  env_.control.disconnect(event.peer);
}

// Does what the core has decided, then starts what can start. Planning and dispatch are timed here, where the clock is.
void Coordinator::Impl::settle() {
  perform();
  while (core_.start_next(env_.clock.now())) {
    perform();
    core_.dispatched(env_.clock.now());
  }
}

void Coordinator::Impl::perform() {
  for (CoordinatorAction& action : core_.take_actions()) std::visit([this](auto& one) { perform(one); }, action);
  for (const RequestId id : std::exchange(too_slow_, {})) core_.cancel(id, env_.clock.now());
  for (CoordinatorAction& action : core_.take_actions()) std::visit([this](auto& one) { perform(one); }, action);
}

void Coordinator::Impl::perform(EmitEvent& action) {
  const auto found = streams_.find(action.request);
  if (found == streams_.end()) return;
  const bool is_last = std::holds_alternative<FinishedEvent>(action.event);
  if (!found->second->push(std::move(action.event))) {
    found->second->close({ErrorCode::kOverloaded, "the answer is read too slowly; read it as it comes"});
    too_slow_.push_back(action.request);
  }
  if (is_last) streams_.erase(found);
}

void Coordinator::Impl::perform(EndStream& action) {
  const auto found = streams_.find(action.request);
  if (found == streams_.end()) return;
  found->second->close(std::move(action.error));
  streams_.erase(found);
}

Result<std::shared_ptr<TokenStream>> Coordinator::Impl::submit(InferenceRequest request) {
  const RequestId id = TRY(core_.submit(std::move(request), env_.clock.now()));
  auto queue = std::make_shared<TokenQueue>(env_.executor, env_.clock);
  streams_.emplace(id, queue);
  settle();
  const std::weak_ptr<Impl> self = weak_from_this();
  const auto finish = [self, id] {
    if (const auto impl = self.lock()) impl->finish(id);
  };
  const auto cancel = [self, id] {
    if (const auto impl = self.lock()) impl->cancel(id);
  };
  const auto written = [self, id] {
    if (const auto impl = self.lock()) impl->first_chunk_written(id);
  };
  return std::make_shared<StreamEnd>(std::move(queue), finish, cancel, written);
}

void Coordinator::Impl::finish(RequestId id) {
  core_.finish(id, env_.clock.now());
  settle();
}

void Coordinator::Impl::cancel(RequestId id) {
  core_.cancel(id, env_.clock.now());
  settle();
}

void Coordinator::Impl::first_chunk_written(RequestId id) { core_.first_chunk_written(id, env_.clock.now()); }

asio::awaitable<void> Coordinator::Impl::drain() {
  core_.begin_drain();
  const Time until = env_.clock.now() + limits::kDrainTimeout;
  while (core_.requests() > 0 && env_.clock.now() < until && !stopping_) co_await env_.clock.sleep_for(kTick);
  core_.end_all({ErrorCode::kUnavailable, "the cluster is shutting down; try another one"}, env_.clock.now());
  perform();
}

void Coordinator::Impl::close_streams() {
  for (auto& [id, queue] : streams_) queue->close({ErrorCode::kUnavailable, "the coordinator has stopped; try again"});
}

Coordinator::Coordinator(CoordinatorEnv env, CoordinatorOptions options)
    : impl_(std::make_shared<Impl>(std::move(env), std::move(options))) {}
Coordinator::~Coordinator() { impl_->close_streams(); }
asio::awaitable<void> Coordinator::run() { return impl_->run(); }
void Coordinator::stop() { impl_->stop(); }
asio::awaitable<void> Coordinator::drain() { return impl_->drain(); }
Result<std::shared_ptr<TokenStream>> Coordinator::submit(InferenceRequest request) {
  return impl_->submit(std::move(request));
}
SpeedMemory Coordinator::speeds() const { return impl_->speeds(); }
ClusterView Coordinator::cluster() const { return impl_->cluster(); }

}  // namespace runahead
