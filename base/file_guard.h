// What keeps the bytes of a mapped file (MappedFile) as they were when it was opened, though its pages are shared with
// every other process that maps it. Whoever writes to the file or cuts it meets one of three guards:
//   lease    (fcntl(2), F_RDLCK) the writer waits until this process has put a copy of its own in the same place;
//   watch    where the file system or the file's owner gives no lease: the process ends with a sentence, 50 ms after a
//            change was made at the latest; so it does on a bus error, which a file that was cut short gives;
//   private  no file is behind the bytes any more.
// Why not otherwise: docs/adr/0010-files-that-others-change.md.
//   threads  any; one thread of the process looks after the guarded files while there are any.
//   owner    the descriptor and the lease; the mapping itself is MappedFile's.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace runahead {

enum class FileGuard { kLease, kWatch, kPrivate };

// Before the file's size is asked for, so that it stays: true if there is a lease now.
bool take_lease(int fd);
// Takes the descriptor. `mapped` is all of the file, read-only.
void guard_file(int fd, bool leased, std::span<const std::byte> mapped, const std::filesystem::path& path);
// Before it is unmapped.
void unguard_file(std::span<const std::byte> mapped);

FileGuard guard_of(std::span<const std::byte> mapped);
// A copy takes the file's place, for what must not be wrong even for 50 ms. kUnavailable if there is no memory, kCorrupt
// if the file is shorter by now.
Result<void> make_private(std::span<const std::byte> mapped);
// The kernel may drop the pages from this process, and reads them again when they are touched.
void drop_file_pages(std::span<const std::byte> mapped);

}  // namespace runahead
