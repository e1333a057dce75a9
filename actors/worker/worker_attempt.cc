#include "actors/worker/worker_attempt.h"

namespace runahead {

std::unexpected<Error> no_memory() {
  return fail(ErrorCode::kOverloaded, "the worker has not enough memory for this request beside the others");
}

WorkerAttempt::WorkerAttempt(const WorkerEnv& env, AttemptId id, Time deadline)
    : prefix(env.executor, env.clock, env.work_done),
      gate(env.executor, env.clock),
      id_(id),
      deadline_{deadline},
      over_(env.executor, env.clock) {}

void WorkerAttempt::end(End how, Failure failure) {
  if (end_) return;
  end_ = how;
  failure_ = std::move(failure);
  over_.notify();
}

asio::awaitable<WorkerAttempt::End> WorkerAttempt::until_over() {
  while (!end_) {
    const bool in_time = co_await over_.wait_until(deadline_);
    if (!in_time) end(End::kFailed, {{ErrorCode::kDeadlineExceeded, "the request's deadline has passed"}});
  }
  co_return *end_;
}

Result<void> WorkerAttempt::lease(const WorkerEnv& env, KeptPrefixes& kept, const PrefixOrder& order,
                                  LeaseShape shape) {
  std::shared_ptr<KvLease> beginning = kept.find(id_.epoch, order.from);  // before it may be dropped
  for (const uint64_t number : order.drop) kept.drop(id_.epoch, number);
  if (order.from == 0) {
    kv = TRY(env.pool.lease(std::move(shape)));
  } else {
    if (!beginning || !beginning->has_beginning(env.engine.shape(), order.pages))
      return fail(ErrorCode::kStale, "this worker does not keep the prompt's beginning any more");
    kv = TRY(env.pool.lease_behind(std::move(beginning), std::move(shape)));
  }
  env.metrics.pages(env.pool.usage());
  return {};
}

int32_t WorkerAttempt::keep(const WorkerEnv& env, KeptPrefixes& kept, uint64_t number, int32_t pages) const {
  if (number == 0 || pages == 0) return 0;
  return kept.keep(id_.epoch, number, env.pool.share(*kv, pages)) ? pages : 0;
}

asio::awaitable<void> WorkerAttempt::release(WorkerSink& metrics) {
  if (kv) kv->mark_quarantined();
  co_await prefix.close();
  co_await downstream.close();
  co_await gate.close();
  metrics.kv_stream_ended(true, prefix.stats().bytes, prefix.stats().span_seconds);
  metrics.kv_stream_ended(false, downstream.stats().bytes, downstream.stats().span_seconds);
}

}  // namespace runahead
