// Task<T>: a coroutine that ends with a value or an Error. It runs on the executor that spawned it: in production the
// process's one io_context thread, in simulation a virtual-time executor (tests/sim). See base/result.h for CO_TRY.
// What a coroutine refers to lives until it ends, in one of three ways. Nothing else is passed by reference or pointer:
//   awaited where it is called   `co_await f(x)`: x is in the frame that waits
//   spawned                      values, and a shared_ptr to what `this` or a reference points into (`self`, `owner`); or
//                                an object whose gate (base/async/gate.h) is closed before it goes
//   seams                        Clock, sinks, executors: they outlive the loop that runs it
// A lambda coroutine never captures: its captures would go with the lambda.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/result.h"

namespace runahead {

namespace asio = boost::asio;

template <class T>
using Task = asio::awaitable<Result<T>>;

// Asio's calls give (error_code, ...) instead of throwing.
inline constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

}  // namespace runahead
