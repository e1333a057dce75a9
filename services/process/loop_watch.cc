#include "services/process/loop_watch.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/stacktrace.hpp>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <ctime>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace runahead {
namespace {

using Steady = std::chrono::steady_clock;

constexpr Duration kEvery = std::chrono::milliseconds(50);
constexpr Duration kDumpWait = std::chrono::milliseconds(100);  // a thread in the kernel is told when it returns
constexpr size_t kPlacesMax = 6;  // of `where`: enough to tell one handler from another
constexpr size_t kFramesMax = 128;

// What the signal's handler fills; null ends it.
std::array<const void*, kFramesMax + 1> frames_of_loop;
std::atomic<bool> frames_are_there{false};

void dump_frames(int) {
  const int kept = errno;
  boost::stacktrace::safe_dump_to(static_cast<void*>(frames_of_loop.data()), sizeof(frames_of_loop));
  frames_are_there.store(true, std::memory_order_release);
  errno = kept;
}

Duration computed_by(pthread_t thread) {
  clockid_t clock{};
  timespec time{};
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return Duration{0};
  return std::chrono::duration_cast<Duration>(std::chrono::seconds(time.tv_sec) +
                                              std::chrono::nanoseconds(time.tv_nsec));
}

// "services/process/canary.cc:12" of an absolute path.
std::string short_place(const std::string& path, size_t line) {
  size_t begin = path.size();
  for (int parts = 0; parts < 3 && begin != 0 && begin != std::string::npos; ++parts)
    begin = path.rfind('/', begin - 1);
  const std::string tail = begin == std::string::npos ? path : path.substr(begin + (path[begin] == '/' ? 1 : 0));
  return tail + ":" + std::to_string(line);
}

// Null: the loop waits for work, so it is the machine that is late with waking it.
std::optional<std::string> where_frames_stand() {
  std::string places, names;
  size_t count = 0, named = 0;
  for (const boost::stacktrace::frame& frame : boost::stacktrace::stacktrace::from_dump(
           static_cast<const void*>(frames_of_loop.data()), sizeof(frames_of_loop))) {
    const std::string name = frame.name(), file = frame.source_file();
    if (name == "epoll_wait") return {};
    if (file.starts_with("/") && !file.starts_with("/usr/") && file.find("loop_watch.cc") == std::string::npos &&
        count++ < kPlacesMax)
      places += (places.empty() ? "" : " < ") + short_place(file, frame.source_line());
    if (name.find("runahead::") != std::string::npos && named++ < kPlacesMax)
      names += (names.empty() ? "" : " < ") + name;
  }
  if (!places.empty()) return places;
  return names.empty() ? "a place that has no name: the program was stripped" : names;
}

}  // namespace

class LoopWatch::Impl {
 public:
  Impl(asio::io_context& io, Report report) : io_(io), shared_(std::make_shared<Shared>(std::move(report))) {
    struct sigaction action{};
    action.sa_handler = dump_frames;
    action.sa_flags = SA_RESTART;
    sigaction(SIGURG, &action, nullptr);
    dump_frames(0);  // what the first dump loads and allocates must not be done by the handler
    thread_ = std::thread([this] { watch(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->stopping = true;
    }
    shared_->changed.notify_all();
    thread_.join();
    std::signal(SIGURG, SIG_IGN);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

 private:
  // The loop may end, and with it the watch, before it answers.
  struct Shared {
    explicit Shared(Report r) : report(std::move(r)) {}
    std::mutex mutex;
    std::condition_variable changed;
    bool answered = false, stopping = false;
    Steady::time_point answered_at;
    const Report report;
  };

  void watch() {
    std::unique_lock lock(shared_->mutex);
    const auto stopping = [&] { return shared_->stopping; };
    while (!shared_->changed.wait_for(lock, kEvery, stopping)) ask(lock);
  }

  void ask(std::unique_lock<std::mutex>& lock) {
    const auto asked = Steady::now();
    const Duration computed = computed_by(loop_);
    shared_->answered = false;
    asio::post(io_, [shared = shared_] {
      {
        const std::lock_guard answer(shared->mutex);
        shared->answered = true;
        shared->answered_at = Steady::now();
      }
      shared->changed.notify_all();
    });
    const auto over = [&] { return shared_->answered || shared_->stopping; };
    auto from = asked;
    while (!shared_->changed.wait_until(lock, from + kLate, over)) {
      if (Steady::now() < from + 2 * kLate) break;
      from = Steady::now();  // this thread was late as well: whatever held it up may have held up the loop
    }
    if (over()) return;
    lock.unlock();
    const bool dumped = dump_loop();
    lock.lock();
    shared_->changed.wait(lock, over);
    if (!shared_->answered) return;
    Stall stall{.lasted = std::chrono::duration_cast<Duration>(shared_->answered_at - from),
                .computed = computed_by(loop_) - computed,
                .where = "a call of the kernel that did not end"};
    lock.unlock();  // the first look at the debug lines takes a third of a second
    const std::optional<std::string> where = dumped ? where_frames_stand() : stall.where;
    lock.lock();
    if (!where) return;
    stall.where = *where;
    asio::post(io_, [shared = shared_, stall = std::move(stall)] { shared->report(stall); });
  }

  // Where the loop's thread stands is in frames_of_loop then.
  bool dump_loop() {
    frames_are_there.store(false, std::memory_order_relaxed);
    if (pthread_kill(loop_, SIGURG) != 0) return false;
    for (const auto end = Steady::now() + kDumpWait; !frames_are_there.load(std::memory_order_acquire);) {
      if (Steady::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  asio::io_context& io_;
  const pthread_t loop_ = pthread_self();
  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

LoopWatch::LoopWatch(asio::io_context& io, Report report) : impl_(std::make_unique<Impl>(io, std::move(report))) {}
LoopWatch::~LoopWatch() = default;

}  // namespace runahead
