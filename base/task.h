// Task<T>: a coroutine that ends with a value or an Error. It runs on the executor that spawned it: in production the
// process's one io_context thread, in simulation a virtual-time executor (tests/sim). See base/result.h for CO_TRY.
// Coroutine parameters are taken by value; a lambda coroutine never captures.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/result.h"

namespace runahead {

namespace asio = boost::asio;

template <class T>
using Task = asio::awaitable<Result<T>>;

}  // namespace runahead
