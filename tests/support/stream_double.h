// StreamDouble: a device's stream as a thread of the host that does one thing after the other. What a library of the device is
// given as a stream's handle is one of these in tests: the emulated GPU's and the transports' (tests/support/nccl).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace runahead {

class StreamDouble {
 public:
  StreamDouble() : thread_([this] { run(); }) {}
  virtual ~StreamDouble() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_one();
    }
    thread_.join();
  }
  // Virtual: other shared objects call it across their border.
  virtual void enqueue(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return over_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace runahead
