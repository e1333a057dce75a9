#include "base/file_guard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/log.h"

namespace runahead {
namespace {

constexpr auto kLook = std::chrono::milliseconds(50);  // a lease gives 45 s (/proc/sys/fs/lease-break-time)
constexpr int kChangedExit = 3;                        // as ErrorCode::kInvalidModel

// Of a file that is written or cut after it was opened, one of these is another. (The time of change of its inode is no
// sign: a new name changes it.)
struct Version {
  int64_t size = 0, written_s = 0, written_ns = 0;
  bool operator==(const Version&) const = default;
};

Version version_of(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return {};
  return {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

// What the handler of SIGBUS may touch: the ranges that are mapped from files.
constexpr size_t kRangesMax = 64;  // later ones have no sentence
struct Range {
  std::atomic<uintptr_t> begin = 0, end = 0;
};
std::array<Range, kRangesMax> ranges;

void on_bus_error(int, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  if (std::ranges::any_of(ranges, [at](const Range& r) { return r.begin <= at && at < r.end; })) {
    constexpr std::string_view kSentence =
        "runahead: a model file or a file of packed weights was cut short, or its disk failed, while it was in use; "
        "put "
        "it back and start again\n";
    [[maybe_unused]] const ssize_t told = write(STDERR_FILENO, kSentence.data(), kSentence.size());
    _exit(kChangedExit);
  }
  std::signal(SIGBUS, SIG_DFL);  // not ours: it strikes again, and ends the process as ever
}

struct Mapping {
  std::string path;
  int fd = -1;
  bool leased = false;
  std::span<const std::byte> mapped;
  Version version;
  Range* range = nullptr;

  Mapping(std::string path_in, int fd_in, bool leased_in, std::span<const std::byte> mapped_in)
      : path(std::move(path_in)), fd(fd_in), leased(leased_in), mapped(mapped_in), version(version_of(fd_in)) {
    const auto free = std::ranges::find_if(ranges, [](const Range& r) { return r.end == 0; });
    if (free == ranges.end()) return;
    range = &*free;
    range->begin = reinterpret_cast<uintptr_t>(mapped.data());
    range->end = range->begin + mapped.size();
  }
  Mapping(const Mapping&) = delete;
  // A writer that waits goes on.
  ~Mapping() {
    if (range != nullptr) range->begin = range->end = 0;
    if (leased) fcntl(fd, F_SETLEASE, F_UNLCK);  // a child that was forked may have the file open too
    close(fd);
  }
  Result<void> copy_in_place() const;
  bool is_private_after_a_look() const;
};

// mremap by its number: the memory hooks of UCX before 1.14 (UCM; openucx/ucx issue 8820) stand in for the C library's in
// every process that has loaded them, and pass on four of its five arguments, so that the memory went to whatever address
// the register held.
bool move_mapping(void* from, size_t size, void* to) {
  const long at = syscall(SYS_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  return at == reinterpret_cast<long>(to);
}

// Reads into new memory, and puts that where the file was: at no time do the bytes differ.
Result<void> Mapping::copy_in_place() const {
  const size_t size = mapped.size();
  void* copy = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return fail(ErrorCode::kUnavailable, "there is no memory for a copy of " + path);
  madvise(copy, size, MADV_HUGEPAGE);
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(fd, static_cast<std::byte*>(copy) + done, size - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<size_t>(got);
  }
  void* const place = const_cast<std::byte*>(mapped.data());
  if (done == size && mprotect(copy, size, PROT_READ) == 0 && move_mapping(copy, size, place)) return {};
  munmap(copy, size);
  return fail(ErrorCode::kCorrupt, path + " could not be read to its end");
}

bool Mapping::is_private_after_a_look() const {
  if (leased && fcntl(fd, F_GETLEASE) == F_RDLCK) return false;
  const bool same = version_of(fd) == version;
  if (!leased && same) return false;
  if (leased && same && copy_in_place()) {
    log::warn("{} is being written to; this process goes on with a copy of its own of {} MiB", path,
              mapped.size() >> 20);
    return true;
  }
  log::critical("{} was changed while it was in use, so what is computed from it cannot be trusted; start again", path);
  log::flush();
  _exit(kChangedExit);
}

// All guarded files of the process, and the thread that looks after them. Never destroyed: files may outlive all else.
class Guards {
 public:
  static Guards& get() {
    static Guards* const guards = new Guards;
    return *guards;
  }

  std::mutex mutex;
  std::map<const std::byte*, Mapping> mappings;  // by where they begin; what is private has none

  // With the mutex held. A child that was forked has no thread.
  void watch() {
    if (watching_ && owner_ == getpid()) return;
    watching_ = true;
    owner_ = getpid();
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, nullptr);
    std::thread([this] { run(); }).detach();
  }

 private:
  void run() {
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        std::erase_if(mappings, [](const auto& entry) { return entry.second.is_private_after_a_look(); });
        watching_ = !mappings.empty();
        if (!watching_) return;
      }
      std::this_thread::sleep_for(kLook);
    }
  }

  bool watching_ = false;
  pid_t owner_ = 0;
};

}  // namespace

bool take_lease(int fd) {
  // The signal of a lease is SIGIO, which would end the process; SIGURG is ignored. The lease itself tells what it is for.
  return fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
}

void guard_file(int fd, bool leased, std::span<const std::byte> mapped, const std::filesystem::path& path) {
  Guards& guards = Guards::get();
  const std::lock_guard lock(guards.mutex);
  guards.mappings.try_emplace(mapped.data(), path.string(), fd, leased, mapped);
  guards.watch();
}

void unguard_file(std::span<const std::byte> mapped) {
  Guards& guards = Guards::get();
  const std::lock_guard lock(guards.mutex);
  guards.mappings.erase(mapped.data());
}

FileGuard guard_of(std::span<const std::byte> mapped) {
  Guards& guards = Guards::get();
  const std::lock_guard lock(guards.mutex);
  const auto found = guards.mappings.find(mapped.data());
  if (found == guards.mappings.end()) return FileGuard::kPrivate;
  return found->second.leased ? FileGuard::kLease : FileGuard::kWatch;
}

Result<void> make_private(std::span<const std::byte> mapped) {
  Guards& guards = Guards::get();
  const std::lock_guard lock(guards.mutex);
  const auto found = guards.mappings.find(mapped.data());
  if (found == guards.mappings.end()) return {};
  TRY(found->second.copy_in_place());
  guards.mappings.erase(found);
  return {};
}

void drop_file_pages(std::span<const std::byte> mapped) {
  Guards& guards = Guards::get();
  const std::lock_guard lock(guards.mutex);
  if (guards.mappings.contains(mapped.data()))  // a private copy would be lost
    madvise(const_cast<std::byte*>(mapped.data()), mapped.size(), MADV_DONTNEED);
}

}  // namespace runahead
