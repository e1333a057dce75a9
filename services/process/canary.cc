#include "services/process/canary.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log_limit.h"
#include "services/gateway/status_routes.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;

constexpr auto kLook = 250ms;  // a heartbeat: workers come and go no faster
constexpr auto kRetry = 1s;  // after one that failed
constexpr int32_t kTokensMax = 1024;  // of its prompt: sixteen workers compute a page each

std::set<WorkerId> ready_workers(const ClusterView& cluster) {
  std::set<WorkerId> ready;
  for (const WorkerView& worker : cluster.workers)
    if (worker.state == "ready") ready.insert(worker.id);
  return ready;
}

}  // namespace

Canary::Canary(asio::any_io_executor executor, Clock& clock, InferenceService& inference, Duration deadline,
               OnResult on_result)
    : clock_(clock),
      inference_(inference),
      deadline_(deadline),
      on_result_(std::move(on_result)),
      stopped_(std::move(executor), clock) {}

void Canary::stop() {
  stopping_ = true;
  stopped_.notify();
}

std::vector<std::string> Canary::reasons_not_ready() const {
  if (passed_) return {};
  return {why_not_};
}

asio::awaitable<void> Canary::run() {
  while (!stopping_) {
    const ClusterView cluster = inference_.cluster();
    const bool can_serve = runahead::reasons_not_ready(cluster).empty();
    // Without workers readiness is gone, and whoever comes then has to prove it anew.
    if (!can_serve) passed_ = false;
    Duration pause = kLook;
    if (can_serve && (!passed_ || ready_workers(cluster) != passed_for_)) {
      const Time begin = clock_.now();
      const Result<void> completed = co_await complete(cluster);
      if (stopping_) co_return;
      // A full queue says that requests are served, and not that they are not.
      const bool busy = !completed && completed.error().code == ErrorCode::kOverloaded;
      if (completed) passed_for_ = ready_workers(cluster);
      if (!busy) {
        passed_ = completed.has_value();
        on_result_(passed_, seconds(clock_.now() - begin));
      }
      if (!completed) {
        why_not_ = "the canary completion has failed: " + completed.error().message;
        warn_limited("canary", "{}", why_not_);
        pause = kRetry;
      }
    }
    co_await stopped_.wait_until(clock_.after(pause));
  }
}

// A page for each prefill worker, evenly: the request goes through all of them and over every hop.
InferenceRequest Canary::request(const ClusterView& cluster) const {
  const auto workers = std::ranges::count_if(
      cluster.workers, [](const WorkerView& worker) { return worker.role == "prefill" && worker.state == "ready"; });
  const auto tokens = std::min({static_cast<int32_t>(workers) * kPageTokens, kTokensMax, cluster.context_len - 1});
  InferenceRequest request{.external_id = "canary", .max_new_tokens = 1, .strategy = Strategy::kEven};
  request.prompt.assign(static_cast<size_t>(std::max(tokens, 1)), TokenId{0});
  request.deadline = deadline_;
  return request;
}

Task<void> Canary::complete(const ClusterView& cluster) {
  auto submitted = inference_.submit(request(cluster));
  const std::shared_ptr<TokenStream> stream = CO_TRY(submitted);
  const Deadline deadline = clock_.after(deadline_);
  while (!stopping_) {
    // In steps: stop() is not kept waiting.
    Result<StreamEvent> event = co_await stream->next({std::min(deadline.at, clock_.after(kLook).at)});
    if (event && std::holds_alternative<FinishedEvent>(*event)) co_return Result<void>{};
    if (!event && (event.error().code != ErrorCode::kDeadlineExceeded || stream->ended()))
      co_return std::unexpected(event.error());
    if (clock_.now() >= deadline.at)
      co_return fail(ErrorCode::kDeadlineExceeded, fmt::format("it had no end within {:.3g} s", seconds(deadline_)));
  }
  co_return fail(ErrorCode::kCancelled, "the service is shutting down");
}

}  // namespace runahead
