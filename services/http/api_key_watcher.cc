#include "services/http/api_key_watcher.h"

#include <boost/asio/post.hpp>
#include <chrono>
#include <csignal>

#include "base/log.h"

namespace runahead {
namespace {

// Two writes within one tick of the kernel's clock (10 ms at most) have one time; network file systems keep seconds.
constexpr int64_t kSettledAfterNs = 2'000'000'000;

int64_t nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

}  // namespace

ApiKeyWatcher::ApiKeyWatcher(asio::any_io_executor executor, std::filesystem::path path, ApiKeys keys, OnKeys on_keys,
                             Duration look_interval)
    : executor_(executor),
      path_(std::move(path)),
      look_interval_(look_interval),
      shared_(std::make_shared<Shared>(std::move(on_keys))),
      hang_up_(executor),
      keys_(std::move(keys)) {
  boost::system::error_code ignored;
  hang_up_.add(SIGHUP, ignored);
  wait_for_hang_up();
  thread_ = std::thread([this] { serve(); });
}

ApiKeyWatcher::~ApiKeyWatcher() {
  close();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void ApiKeyWatcher::close() {
  shared_->on_keys = nullptr;
  boost::system::error_code ignored;
  hang_up_.cancel(ignored);
}

void ApiKeyWatcher::wait_for_hang_up() {
  hang_up_.async_wait([this, shared = shared_](const boost::system::error_code& error, int) {
    if (error || !shared->on_keys) return;  // closed: this may be gone
    {
      std::lock_guard lock(mutex_);
      asked_ = true;
    }
    changed_.notify_one();
    wait_for_hang_up();
  });
}

void ApiKeyWatcher::serve() {
  for (;;) {
    bool asked = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, look_interval_, [this] { return stopping_ || asked_; });
      if (stopping_) return;
      asked = std::exchange(asked_, false);
    }
    look(asked);
  }
}

ApiKeyWatcher::Stamp ApiKeyWatcher::stamp() const {
  struct stat file{};
  if (::stat(path_.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino, file.st_size, nanoseconds(file.st_mtim), nanoseconds(file.st_ctim)};
}

bool ApiKeyWatcher::is_settled(const Stamp& stamp) const {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now) - std::max(stamp.modified_ns, stamp.changed_ns) > kSettledAfterNs;
}

void ApiKeyWatcher::look(bool asked) {
  const Stamp before = stamp();
  if (!asked && settled_ && before == seen_) return;
  std::error_code none;
  const auto kind = std::filesystem::status(path_, none).type();
  if (kind != std::filesystem::file_type::regular && kind != std::filesystem::file_type::not_found) return;
  const bool settled = is_settled(before);
  Result<ApiKeys> read = ApiKeys::load(path_);
  if (stamp() != before) return;  // somebody writes
  seen_ = before;
  settled_ = settled;
  if (!read) return refuse(read.error().message);
  refused_.clear();
  const bool same = *read == keys_;
  if (asked || !same) log::info("{} API keys are in force, from {}", read->size(), path_.string());
  if (same) return;
  keys_ = std::move(*read);
  asio::post(executor_, [shared = shared_, keys = keys_]() mutable {
    if (shared->on_keys) shared->on_keys(std::move(keys));
  });
}

void ApiKeyWatcher::refuse(const std::string& why) {
  if (std::exchange(refused_, why) == why) return;
  log::error("the API keys stay as they were: {}", why);
}

}  // namespace runahead
