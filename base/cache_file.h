// Files that several processes of a machine share as a cache: made whole under another name and renamed, so that a
// reader sees all of one or none; made by one process at a time, behind a lock file.
//   threads any; blocking. owner FileLock holds its lock until it dies, or its process does.
#pragma once

#include <chrono>
#include <filesystem>
#include <span>
#include <vector>

#include "base/result.h"

namespace runahead {

class FileLock {
 public:
  // Creates the file if it is missing. kDeadlineExceeded if another process holds it for longer than `timeout`;
  // kUnavailable if it cannot be created (a read-only folder), with the reason.
  static Result<FileLock> acquire(const std::filesystem::path& path, std::chrono::milliseconds timeout);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

// All of it; false: errno says why.
bool write_all(int fd, std::span<const std::byte> bytes);

// The name of a file in its folder, new or renamed, is durable when this returns. kUnavailable.
Result<void> sync_folder(const std::filesystem::path& of_file);

// The parts in order, as the file `path`. kUnavailable with the reason (a full disk, no permission); then nothing is
// left behind and what was at `path` stays. mode: of the file, as for open().
Result<void> write_whole_file(const std::filesystem::path& path, const std::vector<std::span<const std::byte>>& parts,
                              unsigned mode = 0644);

}  // namespace runahead
