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

Result<void> WorkerAttempt::lease(const WorkerEnv& env, int32_t tokens, int32_t layers_at_once) {
  kv = TRY(env.pool.lease(env.engine.shape().num_layers, tokens, layers_at_once));
  env.metrics.pages(env.pool.usage());
  return {};
}

Result<void> WorkerAttempt::lease_behind(const WorkerEnv& env, const KvLease& beginning, int32_t pages, int32_t tokens,
                                         int32_t layers_at_once) {
  kv = TRY(env.pool.lease_behind(beginning, pages, tokens, layers_at_once));
  prefix.have(env.engine.shape().num_layers, pages);
  env.metrics.pages(env.pool.usage());
  return {};
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
