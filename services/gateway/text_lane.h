// TextLane: where the gateway does work that grows with a text: parsing JSON, templates, tokenizing, writing large
// answers. Up to kInlineTextBytesMax it is done at once, in the caller's thread; more goes to two threads of the lane's
// own, so that the event loop never stands still for it.
//   order    smallest first, but a large text gives way only to those that come within its own share of time
//            (text_turn()): a small text does not wait for large ones, and a large one does not starve. One of the
//            threads takes no text over kSmallTextBytesMax, so that there is always one for the small.
//   limits   run() refuses when kTextQueueBytesMax wait (kOverloaded). render() never refuses, for what it renders is
//            done already; it is bounded by the answers in work: each has one piece at a time.
//   threads  run() and render() on an executor's thread, where they resume; `work` on either, so it shares nothing.
//   owner    outlives its callers' use of it; the destructor ends what runs, and drops what waits.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "base/clock.h"
#include "base/limits.h"
#include "model/sampling_params.h"

namespace runahead {

// When a text's turn comes, against others: smallest first among those that came at the same time.
constexpr Time text_turn(Time arrived, size_t bytes) {
  constexpr Duration kGivesWayPerByte{250};  // about what tokenizing a byte takes: 16 MiB give way for 4 s
  return arrived + kGivesWayPerByte * static_cast<int64_t>(bytes);
}

// About what tokens take as JSON, with their log-probabilities.
size_t json_bytes(std::span<const SampledToken> tokens);

class TextLane {
 public:
  explicit TextLane(const Clock& clock);
  ~TextLane();

  // `work` gives a Result<T>. bytes: of its input or its output, whichever is more.
  template <class Work>
  auto run(size_t bytes, Work work) -> asio::awaitable<std::invoke_result_t<Work&>> {
    if (bytes > limits::kInlineTextBytesMax && !has_room(bytes))
      co_return overloaded("too many large texts are in work; try again", 2);
    co_return co_await render(bytes, std::move(work));
  }

  template <class Work>
  auto render(size_t bytes, Work work) -> asio::awaitable<std::invoke_result_t<Work&>> {
    if (bytes <= limits::kInlineTextBytesMax) co_return work();
    std::optional<std::invoke_result_t<Work&>> result;
    std::exception_ptr failed;  // a failed allocation ends its own request, not the process
    co_await enqueue(bytes, [&result, &failed, &work] {
      try {
        result.emplace(work());
      } catch (...) {
        failed = std::current_exception();
      }
    });
    if (failed) std::rethrow_exception(failed);
    co_return std::move(*result);
  }

 private:
  struct Job {
    size_t bytes = 0;
    std::move_only_function<void()> work;
  };
  using Queue = std::multimap<Time, Job>;  // by text_turn()

  bool has_room(size_t bytes);
  asio::awaitable<void> enqueue(size_t bytes, std::function<void()> work);
  void serve(bool only_small);
  Queue* next_queue(bool only_small);

  const Clock& clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Queue small_, large_;
  size_t waiting_bytes_ = 0;
  bool stopping_ = false;
  std::thread any_, only_small_;
};

}  // namespace runahead
