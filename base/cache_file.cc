#include "base/cache_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

namespace runahead {
namespace {

constexpr auto kLockPoll = std::chrono::milliseconds(10);  // a waiter loses at most this much of its start

std::unexpected<Error> io_error(const std::string& what, const std::filesystem::path& path) {
  return fail(ErrorCode::kUnavailable, "cannot " + what + " " + path.string() + ": " + std::strerror(errno));
}

}  // namespace

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = write(fd, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return true;
}

Result<FileLock> FileLock::acquire(const std::filesystem::path& path, std::chrono::milliseconds timeout) {
  FileLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock.fd_ < 0) return io_error("create", path);
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return io_error("lock", path);
    if (std::chrono::steady_clock::now() >= end)
      return fail(ErrorCode::kDeadlineExceeded, "another process holds " + path.string() + " for too long");
    std::this_thread::sleep_for(kLockPoll);
  }
  return lock;
}

FileLock::~FileLock() {
  if (fd_ >= 0) close(fd_);
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Result<void> sync_folder(const std::filesystem::path& of_file) {
  const std::filesystem::path parent = of_file.parent_path();
  const std::filesystem::path folder = parent.empty() ? std::filesystem::path(".") : parent;
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return io_error("open", folder);
  const bool synced = fsync(fd) == 0 || errno == EINVAL;  // some file systems sync no folders
  close(fd);
  if (!synced) return io_error("sync", folder);
  return {};
}

Result<void> write_whole_file(const std::filesystem::path& path, const std::vector<std::span<const std::byte>>& parts,
                              unsigned mode) {
  const std::filesystem::path unfinished = path.string() + ".tmp-" + std::to_string(getpid());
  const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return io_error("create", unfinished);
  const bool written = std::ranges::all_of(parts, [fd](const auto& part) { return write_all(fd, part); });
  const int write_errno = errno;
  const bool closed = close(fd) == 0;  // some file systems report a full disk only here
  if (written && closed && rename(unfinished.c_str(), path.c_str()) == 0) return {};
  if (!written) errno = write_errno;
  auto error = io_error("write", path);
  unlink(unfinished.c_str());
  return error;
}

}  // namespace runahead
