#include "base/clock.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>

namespace runahead {

Time AsioClock::now() const { return std::chrono::steady_clock::now().time_since_epoch(); }

asio::awaitable<void> AsioClock::sleep_until(Time at) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_at(std::chrono::steady_clock::time_point(at));
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

}  // namespace runahead
