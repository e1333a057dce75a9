#include "services/process/process.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <csignal>
#include <optional>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

constexpr rlim_t kOtherDescriptors = 256;  // files, pipes, libraries
constexpr Duration kStallsApart = std::chrono::seconds(10);  // in the log; the metric counts each

// Sockets are descriptors, and the soft limit that a shell gives is often below what our bounds allow, the hard one not.
void raise_descriptor_limit() {
  constexpr rlim_t wanted = limits::kHttpConnectionsMax + limits::kUnregisteredPeersMax + limits::kWorkersMax +
                            2 * limits::kKvStreamsMax + kOtherDescriptors;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(limit.rlim_max, wanted);
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

uint64_t random_seed() { return SystemRng().next(); }

ServiceProcess::ServiceProcess() {
  raise_descriptor_limit();
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  std::signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error code, not the end
}

void ServiceProcess::report(const LoopWatch::Stall& stall) {
  if (stalled_) stalled_(seconds(stall.lasted));
  const Time now = clock_.now();
  if (stall_told_ && now - *stall_told_ < kStallsApart) return;
  stall_told_ = now;
  log::warn("the event loop stood still for {:.3f} s ({:.3f} s of them computing) at {}", seconds(stall.lasted),
            seconds(stall.computed), stall.where);
}

asio::awaitable<void> ServiceProcess::handle_signals(std::function<void()> on_drain, std::function<void()> on_stop) {
  auto [first_error, first] = co_await signals_.async_wait(asio::as_tuple(asio::use_awaitable));
  if (first_error) co_return;
  log::info("draining; a second signal ends it at once");
  on_drain();
  auto [second_error, second] = co_await signals_.async_wait(asio::as_tuple(asio::use_awaitable));
  if (second_error) co_return;
  on_stop();
}

Result<void> ServiceProcess::run(Task<void> body, std::function<void()> on_drain, std::function<void()> on_stop) {
  const LoopWatch watch(io_, [this](const LoopWatch::Stall& stall) { report(stall); });
  std::optional<Result<void>> result;
  asio::co_spawn(io_, std::move(body), [&](std::exception_ptr error, Result<void> r) {
    if (error) std::rethrow_exception(error);  // a programming error: expected failures are values
    result = std::move(r);
    signals_.cancel();
  });
  asio::co_spawn(io_, handle_signals(std::move(on_drain), std::move(on_stop)), asio::detached);
  while (!result && io_.run_one() > 0) {
  }
  io_.poll();  // what the end of `body` has posted
  RUNAHEAD_CHECK(result.has_value(), "the event loop ran dry before its work was done");
  return std::move(*result);
}

}  // namespace runahead
