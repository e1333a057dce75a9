// ApiKeyWatcher: the file of API keys, followed while the process runs: who writes a key into it, or takes one out, needs no
// restart. It looks at the file each kLookInterval, and at once on SIGHUP. A file that cannot be read, or holds no key,
// changes nothing: the keys stay as they were, and the log says why, once.
//   change   another device, inode, size, time of modification or of status: editing in place, a rename over the file, and
//            the symlink that Kubernetes swaps for a mounted Secret. A file that changes while it is read is read later.
//   threads  made, closed and destroyed on the executor's thread, where `on_keys` is called, too; files are read and
//            digests made on a thread of its own. What is no regular file (a pipe) is not looked at again.
//   owner    what `on_keys` captures outlives close().
#pragma once

#include <sys/stat.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/signal_set.hpp>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "services/http/api_keys.h"

namespace runahead {

class ApiKeyWatcher {
 public:
  static constexpr Duration kLookInterval = std::chrono::seconds(1);  // a stat() a second costs nothing
  using OnKeys = std::function<void(ApiKeys)>;

  // keys: what the file holds, as the caller has read it.
  ApiKeyWatcher(asio::any_io_executor executor, std::filesystem::path path, ApiKeys keys, OnKeys on_keys,
                Duration look_interval = kLookInterval);
  ~ApiKeyWatcher();
  // No further call of on_keys. The executor may then run dry.
  void close();

 private:
  // A file as it was when it was looked at. Zero: there was none.
  struct Stamp {
    dev_t device = 0;
    ino_t inode = 0;
    off_t bytes = 0;
    int64_t modified_ns = 0, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  struct Shared {
    OnKeys on_keys;  // empty: closed
  };

  Stamp stamp() const;
  bool is_settled(const Stamp& stamp) const;
  void wait_for_hang_up();
  void serve();
  void look(bool asked);
  void refuse(const std::string& why);

  asio::any_io_executor executor_;
  const std::filesystem::path path_;
  const Duration look_interval_;
  std::shared_ptr<Shared> shared_;  // with what is posted to the executor and may run after this has died
  boost::asio::signal_set hang_up_;
  ApiKeys keys_;  // the thread's, as the next three
  Stamp seen_;
  bool settled_ = false;  // seen_ was old enough to tell a later change from it
  std::string refused_;  // why the file was refused last; empty: it was not
  std::mutex mutex_;
  std::condition_variable changed_;
  bool asked_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace runahead
