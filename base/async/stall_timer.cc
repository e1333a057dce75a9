#include "base/async/stall_timer.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

namespace runahead {

StallTimer::StallTimer(asio::any_io_executor executor, Clock& clock, std::function<void()> on_stall)
    : executor_(executor), clock_(clock), on_stall_(std::move(on_stall)), changed_(std::move(executor), clock) {}

void StallTimer::start(Duration limit, std::shared_ptr<const void> owner) {
  limit_ = limit;
  started_ = true;
  progress();
  if (!watching_) {
    watching_ = true;
    looks_at_ = last_ + limit;
    asio::co_spawn(executor_, watch(this, std::move(owner)), asio::detached);
  } else if (looks_at_ > last_ + limit) {  // it waits for a longer limit, and would look too late
    changed_.notify();
  }
}

void StallTimer::cancel() {
  started_ = false;
  if (watching_) changed_.notify();
}

asio::awaitable<void> StallTimer::watch(StallTimer* self, std::shared_ptr<const void>) {
  while (self->started_ && self->clock_.now() < self->last_ + self->limit_) {
    self->looks_at_ = self->last_ + self->limit_;
    co_await self->changed_.wait_until({self->looks_at_});
  }
  self->watching_ = false;
  if (std::exchange(self->started_, false)) self->on_stall_();
}

}  // namespace runahead
