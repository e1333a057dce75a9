#include "transport/kv/device_lane.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <utility>

#include "base/check.h"

namespace runahead {
namespace {

constexpr size_t kJobsUnderWay = DeviceStream::kTicketsMax / 2;
constexpr auto kPoll = std::chrono::microseconds(20);  // of a page that takes about as long
constexpr auto kPollConnecting = std::chrono::microseconds(200);
// What is aborted ends at once, or the device hangs; a worker whose device hangs is to be started anew.
constexpr auto kLetGoTimeout = std::chrono::seconds(10);
constexpr const char* kAborted = "the connection between the devices has ended";

}  // namespace

DeviceLane::DeviceLane(MakeDeviceStream make_stream)
    : make_stream_(std::move(make_stream)), event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  RUNAHEAD_CHECK(event_ >= 0, "there is no descriptor left for a lane's event");
}

DeviceLane::~DeviceLane() {
  RUNAHEAD_CHECK(!thread_.joinable(), "a lane is stopped before it dies");
  close(event_);
}

void DeviceLane::start(Start start) {
  start_ = std::move(start);
  thread_ = std::thread([this] { run(); });
}

asio::awaitable<void> DeviceLane::serve() {
  asio::posix::stream_descriptor event(co_await asio::this_coro::executor, dup(event_));
  while (!ended_) {
    co_await event.async_wait(asio::posix::stream_descriptor::wait_read, kAsTuple);
    complete();
  }
}

void DeviceLane::stop() {
  abort();
  if (thread_.joinable()) thread_.join();
}

void DeviceLane::checksum(std::span<const std::byte> page, Done done) {
  ask({Kind::kChecksum, const_cast<std::byte*>(page.data()), page.size(), 0, std::move(done)});
}
void DeviceLane::send(std::span<const std::byte> page, Done done) {
  ask({Kind::kSend, const_cast<std::byte*>(page.data()), page.size(), 0, std::move(done)});
}
void DeviceLane::receive(std::span<std::byte> page, uint64_t at, Done done) {
  ask({Kind::kReceive, page.data(), page.size(), at, std::move(done)});
}
void DeviceLane::discard(size_t bytes, Done done) { ask({Kind::kDiscard, nullptr, bytes, 0, std::move(done)}); }

void DeviceLane::ask(Job job) {
  const std::lock_guard lock(mutex_);
  if (over_) {
    answers_.emplace_back([done = std::move(job.done)] { done(kAborted, std::nullopt); });
    eventfd_write(event_, 1);
    return;
  }
  (job.kind == Kind::kChecksum ? asked_checksums_ : asked_pages_).push_back(std::move(job));
  changed_.notify_one();
}

void DeviceLane::abort() {
  const std::lock_guard lock(mutex_);
  aborting_ = true;
  changed_.notify_one();
}

void DeviceLane::complete() {
  std::vector<std::function<void()>> answers;
  std::optional<Error> failure;
  {
    const std::lock_guard lock(mutex_);
    eventfd_t ignored = 0;
    eventfd_read(event_, &ignored);
    answers.swap(answers_);
    failure = std::exchange(why_, std::nullopt);
  }
  if (failure) start_.on_failure(*failure);
  for (const auto& call : answers) call();
  const std::lock_guard lock(mutex_);
  ended_ = over_ && answers_.empty();  // an answer may have asked for more
}

void DeviceLane::answer(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  answers_.push_back(std::move(call));
  eventfd_write(event_, 1);
}

void DeviceLane::run() {
  const Outcome worked = work();
  {
    const std::lock_guard lock(mutex_);
    if (!worked && !aborting_) why_ = worked.error();  // before the first job is answered by it
  }
  let_go();
  const std::lock_guard lock(mutex_);
  over_ = true;
  for (std::deque<Job>* asked : {&asked_pages_, &asked_checksums_})
    for (Job& job : std::exchange(*asked, {}))
      answers_.emplace_back([done = std::move(job.done)] { done(kAborted, std::nullopt); });
  eventfd_write(event_, 1);
}

DeviceLane::Outcome DeviceLane::work() {
  pages_stream_ = TRY(make_stream_());
  checksums_stream_ = TRY(make_stream_());
  // Now: to allocate waits for what the device has in hand, which may later wait for the peer.
  if (start_.discard_bytes > 0) nobodys_ = TRY(pages_stream_->scratch(start_.discard_bytes));
  TRY(connect());
  answer([this] {
    ready_ = true;
    if (start_.on_ready) start_.on_ready();
  });
  while (!aborting_) {
    TRY(take_jobs());
    const size_t pages = count_done(*pages_stream_, pages_), checksums = count_done(*checksums_stream_, checksums_);
    // Before they count as moved: a stream goes on behind an operation that has failed.
    TRY(check());
    finish_jobs(*pages_stream_, pages_, pages);
    finish_jobs(*checksums_stream_, checksums_, checksums);
  }
  return {};
}

void DeviceLane::introduce(const LaneIntroduction& introduction) {
  answer([this, introduction] { start_.on_introduction(introduction); });
}

// Waits for one if nothing is under way, else a moment.
DeviceLane::Outcome DeviceLane::take_jobs() {
  std::unique_lock lock(mutex_);
  const auto next = [this]() -> std::deque<Job>* {
    if (!asked_checksums_.empty() && checksums_.size() < kJobsUnderWay) return &asked_checksums_;
    return !asked_pages_.empty() && pages_.size() < kJobsUnderWay ? &asked_pages_ : nullptr;
  };
  const auto something = [&] { return aborting_ || next() != nullptr; };
  if (pages_.empty() && checksums_.empty()) {
    changed_.wait(lock, something);
  } else {
    changed_.wait_for(lock, kPoll, something);
  }
  while (std::deque<Job>* asked = aborting_ ? nullptr : next()) {
    Job job = std::move(asked->front());
    asked->pop_front();
    lock.unlock();
    TRY(begin(std::move(job)));
    lock.lock();
  }
  return {};
}

DeviceLane::Outcome DeviceLane::begin(Job job) {
  if (job.kind == Kind::kChecksum) {
    const auto ticket = checksums_stream_->checksum({job.page, job.bytes});
    checksums_.push_back({std::move(job), ticket});
    return {};
  }
  pages_.push_back({std::move(job), 0});  // from here on the device may have it
  UnderWay& under_way = pages_.back();
  const Job& asked = under_way.job;
  const bool fits = asked.kind != Kind::kDiscard || asked.bytes <= nobodys_.size();
  std::byte* page = asked.kind == Kind::kDiscard ? nobodys_.data() : asked.page;
  const Outcome moved =
      fits ? move(asked, page, *pages_stream_)
           : fail(ErrorCode::kCorrupt, "the peer sends a page that is larger than all of its streams'");
  under_way.ticket =
      moved && asked.kind == Kind::kReceive ? pages_stream_->checksum({page, asked.bytes}) : pages_stream_->ticket();
  return moved;
}

size_t DeviceLane::count_done(DeviceStream& stream, const std::deque<UnderWay>& jobs) {
  const auto not_yet = std::ranges::find_if(jobs, [&](const UnderWay& job) { return !stream.is_done(job.ticket); });
  return static_cast<size_t>(not_yet - jobs.begin());
}

void DeviceLane::finish_jobs(DeviceStream& stream, std::deque<UnderWay>& jobs, size_t count) {
  for (; count > 0; --count) {
    const uint32_t crc32c = stream.result(jobs.front().ticket);
    const bool has_crc = jobs.front().job.kind == Kind::kChecksum || jobs.front().job.kind == Kind::kReceive;
    answer([done = std::move(jobs.front().job.done), crc = has_crc ? std::optional(crc32c) : std::nullopt] {
      done(nullptr, crc);
    });
    jobs.pop_front();
  }
}

void DeviceLane::let_go() {
  disconnect();
  const auto until = std::chrono::steady_clock::now() + kLetGoTimeout;
  for (const bool pages : {true, false}) {
    DeviceStream* stream = (pages ? pages_stream_ : checksums_stream_).get();
    std::deque<UnderWay>& jobs = pages ? pages_ : checksums_;
    while (!jobs.empty()) {
      while (!stream->is_done(jobs.back().ticket)) {
        RUNAHEAD_CHECK(std::chrono::steady_clock::now() < until, "the device does not end what was aborted: it hangs");
        std::this_thread::sleep_for(kPollConnecting);
      }
      answer([done = std::move(jobs.front().job.done)] { done(kAborted, std::nullopt); });
      jobs.pop_front();
    }
  }
  leave();
  pages_stream_.reset();
  checksums_stream_.reset();
}

}  // namespace runahead
