// DiskLane: one thread that works on files, in the order in which it is asked; the event loop waits for no disk.
//   threads  run() on an executor's thread, where it resumes; `work` on the lane's.
//   owner    outlives its callers' use of it; the destructor lets what was asked for end first.
//   limits   none of its own: what waits is bounded by the requests and the batches in work.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <new>
#include <stdexcept>

#include "base/task.h"

namespace runahead {

class DiskLane {
 public:
  DiskLane() : pool_(1) {}
  ~DiskLane() { pool_.join(); }

  template <class T>
  Task<T> run(std::function<Result<T>()> work) {
    auto initiate = [this](auto handler, std::function<Result<T>()> body) {
      auto executor = asio::get_associated_executor(handler);
      asio::post(pool_, [guard = asio::make_work_guard(executor), executor, handler = std::move(handler),
                         body = std::move(body)]() mutable {
        Result<T> result = guarded(body);
        asio::post(executor, [handler = std::move(handler), result = std::move(result)]() mutable {
          std::move(handler)(std::move(result));
        });
      });
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<T>)>(
        std::move(initiate), asio::use_awaitable, std::move(work));
  }

 private:
  // What needs too much memory ends by itself.
  template <class T>
  static Result<T> guarded(const std::function<Result<T>()>& work) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {
    }
    return fail(ErrorCode::kUnavailable, "there is not enough memory for this file; try again later");
  }

  asio::thread_pool pool_;
};

}  // namespace runahead
