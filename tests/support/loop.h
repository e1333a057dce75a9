// An event loop for tests of one coroutine: runs it to its end.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <optional>

#include "base/clock.h"
#include "base/task.h"

namespace runahead::test {

struct Loop {
  asio::io_context io;
  AsioClock clock;

  template <class T>
  T run(asio::awaitable<T> coroutine) {
    io.restart();
    std::optional<T> result;
    asio::co_spawn(io, std::move(coroutine), [&](std::exception_ptr, T value) { result = std::move(value); });
    while (!result && io.run_one() > 0) {
    }
    EXPECT_TRUE(result) << "the coroutine never ended";
    return std::move(*result);
  }
  template <class F>
  void spawn(F coroutine) {
    asio::co_spawn(io, std::move(coroutine), [](std::exception_ptr, auto&&...) {});
  }
};

}  // namespace runahead::test
