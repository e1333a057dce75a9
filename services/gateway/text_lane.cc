#include "services/gateway/text_lane.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>

namespace runahead {

size_t json_bytes(std::span<const SampledToken> tokens) {
  constexpr size_t kEntryBytes = 128;  // {"token":"...","logprob":-0.123456,"bytes":[...]}
  size_t entries = 0;
  for (const SampledToken& token : tokens) entries += 1 + token.top.size();
  return entries * kEntryBytes;
}

TextLane::TextLane(const Clock& clock)
    : clock_(clock), any_([this] { serve(false); }), only_small_([this] { serve(true); }) {}

TextLane::~TextLane() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  any_.join();
  only_small_.join();
}

bool TextLane::has_room(size_t bytes) {
  const std::lock_guard lock(mutex_);
  return waiting_bytes_ + bytes <= limits::kTextQueueBytesMax;
}

asio::awaitable<void> TextLane::enqueue(size_t bytes, std::function<void()> work) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto initiate = [&](auto handler) {
    // The guard keeps the executor's loop turning until the answer is back.
    auto job = [guard = asio::make_work_guard(executor), work = std::move(work),
                handler = std::move(handler)]() mutable {
      work();
      asio::post(guard.get_executor(), std::move(handler));
    };
    const std::lock_guard lock(mutex_);
    waiting_bytes_ += bytes;
    Queue& queue = bytes <= limits::kSmallTextBytesMax ? small_ : large_;
    queue.emplace(text_turn(clock_.now(), bytes), Job{bytes, std::move(job)});
    changed_.notify_all();
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(initiate, asio::use_awaitable);
}

TextLane::Queue* TextLane::next_queue(bool only_small) {
  const bool takes_large = !only_small && !large_.empty();
  if (small_.empty()) return takes_large ? &large_ : nullptr;
  return takes_large && large_.begin()->first < small_.begin()->first ? &large_ : &small_;
}

void TextLane::serve(bool only_small) {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || next_queue(only_small) != nullptr; });
    if (stopping_) return;
    Queue* queue = next_queue(only_small);
    Job job = std::move(queue->extract(queue->begin()).mapped());
    waiting_bytes_ -= job.bytes;
    lock.unlock();
    job.work();
  }
}

}  // namespace runahead
