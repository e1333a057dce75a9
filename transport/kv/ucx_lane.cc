#include "transport/kv/ucx_lane.h"

#include <boost/asio/post.hpp>
#include <cstring>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "transport/kv/ucx_operation.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

constexpr unsigned kPageId = 1;  // of its active message
constexpr int kProgressBudget = 32;  // rounds of UCX before other handlers of this thread have a turn
// At an end: what UCX gives back then comes with progress, and not always with an event.
constexpr auto kNudge = std::chrono::milliseconds(1);
// What UCX may keep after its endpoint is closed by force, and the event loop is gone; it takes a few milliseconds.
constexpr auto kLetGoTimeout = std::chrono::seconds(1);
constexpr size_t kAnnouncedMax = 4 * limits::kKvStreamsMax;  // pages of a good sender under way
constexpr const char* kEnded = "the UCX connection has ended";

// The introduction: an address that UCX reads without looking for its end, behind its CRC32C.
LaneIntroduction introduction_of(std::span<const std::byte> address) {
  LaneIntroduction introduction(sizeof(uint32_t));
  store_le<uint32_t>(introduction.data(), crc32c(address));
  introduction.insert(introduction.end(), address.begin(), address.end());
  return introduction;
}

Result<std::span<const std::byte>> address_in(const LaneIntroduction& introduction) {
  const std::span all(introduction);
  if (all.size() <= sizeof(uint32_t) || load_le<uint32_t>(all.data()) != crc32c(all.subspan(sizeof(uint32_t))))
    return fail(ErrorCode::kCorrupt, "the peer's UCX address fails its checksum");
  return all.subspan(sizeof(uint32_t));
}

}  // namespace

UcxLane::UcxLane(std::shared_ptr<UcxContext> context, asio::any_io_executor executor, const LaneIntroduction* of_sender)
    : context_(std::move(context)),
      peer_(of_sender == nullptr ? LaneIntroduction() : *of_sender),
      events_(executor),
      nudge_(executor) {}

void UcxLane::start(Start start) { start_ = std::move(start); }

// Runs UCX until it has nothing to do, then sleeps until its event descriptor is readable or somebody kicks.
asio::awaitable<void> UcxLane::serve() {
  if (auto opened = open(); !opened) fail(opened.error());
  while (!has_let_go()) {
    if (over_) close_endpoint();
    if (!progress() || ucp_worker_arm(worker_) == UCS_ERR_BUSY) {
      co_await asio::post(asio::use_awaitable);
      continue;
    }
    if (has_let_go()) break;
    if (over_) {
      nudge_.expires_after(kNudge);
      co_await nudge_.async_wait(kAsTuple);
      continue;
    }
    sleeping_ = true;
    co_await events_.async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
    sleeping_ = false;
  }
  let_go();
}

bool UcxLane::progress() {
  int budget = kProgressBudget;
  while (budget > 0 && ucp_worker_progress(worker_) != 0) --budget;
  return budget > 0;
}

Result<void> UcxLane::open() {
  if (over_) return {};
  int event = -1;
  worker_ = TRY(context_->make_worker(&event));
  events_.assign(event);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kPageId;
  handler.cb = on_page;
  handler.arg = this;
  RUNAHEAD_CHECK(ucp_worker_set_am_recv_handler(worker_, &handler) == UCS_OK, "UCX refused a message handler");
  ucp_address_t* address = nullptr;
  size_t length = 0;
  const ucs_status_t status = ucp_worker_get_address(worker_, &address, &length);
  if (status != UCS_OK)
    return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX has no address for its worker", status));
  const LaneIntroduction introduction = introduction_of({reinterpret_cast<const std::byte*>(address), length});
  ucp_worker_release_address(worker_, address);
  if (introduction.size() > kLaneIntroductionBytesMax)
    return runahead::fail(ErrorCode::kUnavailable, "UCX uses too many network devices: name some in UCX_NET_DEVICES");
  if (!start_.sends) TRY(open_endpoint());
  start_.on_introduction(introduction);
  return {};
}

Result<void> UcxLane::meet(const LaneIntroduction& of_receiver) {
  peer_ = of_receiver;
  if (over_ || worker_ == nullptr) return {};
  TRY(open_endpoint());
  send_queued();
  return {};
}

// A second hop over the same lanes is no news.
void UcxLane::note_lanes() {
  std::string lanes = lanes_of(endpoint_);
  if (lanes == context_->lanes) return;
  log::info("ucx: K/V pages travel over {}", lanes);
  context_->lanes = std::move(lanes);
}

Result<void> UcxLane::open_endpoint() {
  const auto address = TRY(address_in(peer_));
  ucp_ep_params_t params{};
  params.field_mask =
      UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = [](void* lane, ucp_ep_h, ucs_status_t status) {
    static_cast<UcxLane*>(lane)->fail(ucx_error(ErrorCode::kWorkerLost, "UCX has lost the peer", status));
  };
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_, &params, &endpoint_);
  if (status != UCS_OK) {
    endpoint_ = nullptr;
    return std::unexpected(ucx_error(
        ErrorCode::kWorkerLost, "UCX cannot reach the peer (is there a common UCX_TLS lane, and a route?)", status));
  }
  auto* kept = keep(pending_, [this](const char* error, auto) {
    if (error != nullptr || over_) return;
    ready_ = true;
    note_lanes();
    if (start_.on_ready) start_.on_ready();
  });
  const auto param = request_param(kept, 0);
  void* request = ucp_ep_flush_nbx(endpoint_, &param);
  if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
  kick();
  return {};
}

void UcxLane::fail(Error why) {
  if (std::exchange(over_, true)) return;
  start_.on_failure(why);
  kick();
}

void UcxLane::abort() {
  over_ = true;
  kick();
}

void UcxLane::kick() {
  if (!std::exchange(sleeping_, false)) return;
  if (events_.is_open()) events_.cancel();  // closed: stop() was there before
}

void UcxLane::close_endpoint() {
  if (endpoint_ == nullptr || std::exchange(closing_, true)) return;
  auto* kept = keep(pending_, [this](const char*, auto) { endpoint_ = nullptr; });
  const auto param = request_param(kept, UCP_EP_CLOSE_FLAG_FORCE);
  void* request = ucp_ep_close_nbx(endpoint_, &param);
  if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
}

// Where the event loop is gone nobody serves any more. What UCX does not give back it may still touch: then the process ends, as
// the pages do with it.
void UcxLane::stop() {
  over_ = true;
  if (worker_ == nullptr) return let_go();
  const auto until = std::chrono::steady_clock::now() + kLetGoTimeout;
  for (close_endpoint(); !has_let_go();) {
    if (ucp_worker_progress(worker_) != 0) continue;
    RUNAHEAD_CHECK(std::chrono::steady_clock::now() < until, "UCX does not give back what it has in hand");
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  let_go();
}

void UcxLane::let_go() {
  nudge_.cancel();
  for (const auto& [number, data] : std::exchange(announced_, {})) ucp_am_data_release(worker_, data.first);
  if (events_.is_open()) events_.release();
  if (worker_ != nullptr) ucp_worker_destroy(std::exchange(worker_, nullptr));
  for (const Job& job : std::exchange(queued_, {})) job.done(kEnded, std::nullopt);
  for (const auto& [number, job] : std::exchange(wanted_, {})) job.done(kEnded, std::nullopt);
}

void UcxLane::checksum(std::span<const std::byte>, Done) {
  RUNAHEAD_CHECK(false, "pages of the host come with their checksum");
}

void UcxLane::send(std::span<const std::byte> page, Done done) {
  if (over_) return done(kEnded, std::nullopt);
  queued_.push_back({{const_cast<std::byte*>(page.data()), page.size()}, std::move(done)});
  if (endpoint_ != nullptr) send_queued();
}

void UcxLane::send_queued() {
  while (!queued_.empty()) {
    Job job = std::move(queued_.front());
    queued_.pop_front();
    const auto number = std::make_shared<uint64_t>(++last_sent_);  // UCX reads it until the end
    auto* kept = keep(pending_, [number, done = std::move(job.done)](const char* error, auto) { done(error, {}); });
    auto param = request_param(kept, UCP_AM_SEND_FLAG_RNDV);
    if (context_->memory() != nullptr) {
      param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
      param.memh = context_->memory();
    }
    void* request =
        ucp_am_send_nbx(endpoint_, kPageId, number.get(), sizeof *number, job.page.data(), job.page.size(), &param);
    if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
  }
  kick();
}

void UcxLane::receive(std::span<std::byte> page, uint64_t, Done done) { want({page, std::move(done)}); }

void UcxLane::discard(size_t bytes, Done done) { want({{static_cast<std::byte*>(nullptr), bytes}, std::move(done)}); }

void UcxLane::want(Job job) {
  if (over_) return job.done(kEnded, std::nullopt);
  const uint64_t number = ++last_wanted_;
  const auto found = announced_.find(number);
  if (found == announced_.end()) {
    wanted_.emplace(number, std::move(job));
    return;
  }
  const auto [data, length] = found->second;
  announced_.erase(found);
  if (length != job.page.size()) {
    ucp_am_data_release(worker_, data);
    wanted_.emplace(number, std::move(job));  // answered at the end
    return fail({ErrorCode::kCorrupt, "a page is not as long as it was announced", {}});
  }
  if (job.page.data() != nullptr) return fetch(data, std::move(job));
  ucp_am_data_release(worker_, data);
  job.done(nullptr, std::nullopt);
}

void UcxLane::fetch(void* announced, Job job) {
  auto* kept = keep(pending_, std::move(job.done));
  auto param = request_param(kept, 0);
  param.cb.recv_am = on_received;
  if (context_->memory() != nullptr) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
    param.memh = context_->memory();
  }
  void* request = ucp_am_recv_data_nbx(worker_, announced, job.page.data(), job.page.size(), &param);
  if (!UCS_PTR_IS_PTR(request)) finish(kept, UCS_PTR_STATUS(request));
  kick();
}

ucs_status_t UcxLane::on_page(void* arg, const void* header, size_t header_length, void* data, size_t length,
                              const ucp_am_recv_param_t* param) {
  auto* lane = static_cast<UcxLane*>(arg);
  uint64_t number = 0;
  if (lane->over_) return UCS_OK;
  if (header_length == sizeof number) std::memcpy(&number, header, sizeof number);
  const bool by_rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  const auto kept = lane->announced(number, data, length, by_rendezvous);
  if (!kept) lane->fail(kept.error());
  return kept && *kept ? UCS_INPROGRESS : UCS_OK;  // OK drops what was never fetched
}

// Whether UCX is to keep the page until it is fetched or released.
Result<bool> UcxLane::announced(uint64_t number, void* data, size_t length, bool by_rendezvous) {
  const auto found = wanted_.find(number);
  const bool may_come = found != wanted_.end() || (number > last_wanted_ && announced_.size() < kAnnouncedMax);
  const bool is_new = may_come && !announced_.contains(number);
  if (start_.sends || !by_rendezvous || !is_new)
    return runahead::fail(ErrorCode::kCorrupt, "the peer sends by UCX what it may not");
  if (found == wanted_.end()) {
    announced_.emplace(number, std::pair(data, length));
    return true;
  }
  if (found->second.page.size() != length)
    return runahead::fail(ErrorCode::kCorrupt, "a page is not as long as it was announced");
  Job job = std::move(found->second);
  wanted_.erase(found);
  if (job.page.data() == nullptr) {
    job.done(nullptr, std::nullopt);
    return false;
  }
  fetch(data, std::move(job));
  return true;
}

}  // namespace runahead
