// FileStore: files that clients leave here and that batches make, and small records beside them, in one folder. What add(),
// finish_part() and put_record() have returned for survives the process and the machine.
//   damage   a file whose bytes are not those that were written is never given out: `check` is compared where a file is read
//            whole. What is damaged or half written at a start is said, and not shown.
//   threads  the executor's one thread; all I/O is done by a thread of its own. open() blocks.
//   owner    the folder, exclusively: a second process is refused. Outlives its callers' use of it.
//   limits   FileStoreOptions. What batches make is not refused by them: the work for it is done.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/cache_file.h"
#include "services/file_store/disk_lane.h"
#include "services/file_store/file_folder.h"

namespace runahead {

struct FileStoreOptions {
  std::filesystem::path folder;  // made if it is missing, its parent is not
  size_t file_bytes_max = 32 << 20;  // of one that is sent: 50,000 questions of 600 bytes. It comes whole into memory
  uint64_t bytes_max = uint64_t{10} << 30;  // of all together
  size_t files_max = 10'000;  // heads in memory, 300 bytes each
};

struct FileHead {
  std::string id;  // "file-" and 24 hex digits
  std::string owner;  // who may see it; empty: everybody
  std::string filename;  // as the client says; never a path of ours
  std::string purpose;  // "batch", "batch_output"
  uint64_t bytes = 0;
  int64_t created_unix_ms = 0;
  uint32_t check = 0;  // CRC32C of its bytes
};

class FileStore {
 public:
  // kInvalidConfig with what to do if the folder cannot be used, or another process uses it.
  static Result<std::unique_ptr<FileStore>> open(FileStoreOptions options);
  const FileStoreOptions& options() const { return options_; }
  const std::vector<std::string>& damage() const { return damage_; }  // found by open(): a sentence each, for the log

  const std::map<std::string, FileHead>& files() const { return files_; }
  // Null if there is none that this owner may see.
  const FileHead* find(const std::string& owner, const std::string& id) const;
  // `content` is a view into `body`. kOverloaded if there is no room; sets bytes and check.
  Task<FileHead> add(FileHead head, std::shared_ptr<const std::string> body, std::string_view content);
  Task<void> remove(std::string id);
  Task<std::string> read(std::string id, uint64_t offset, size_t bytes);  // fewer at its end
  Task<void> verify(std::string id);  // kCorrupt: its bytes are not what was written

  // A file that grows by whole lines until it is finished. recover_part() gives what the lines that are whole begin with.
  Task<std::vector<std::string>> recover_part(std::string id, size_t prefix_bytes);
  Task<void> append(std::string id, std::string lines);
  Task<FileHead> finish_part(FileHead head);  // the same again is nothing

  // Those that were there at open(), by id. It does not keep them.
  std::map<std::string, std::string> take_records() { return std::move(records_); }
  Task<void> put_record(std::string id, std::string text);
  Task<void> remove_record(std::string id);
  // Contents that neither a file nor one of `kept` leads to: what a crash has left.
  Task<void> remove_orphans(std::set<std::string> kept);

 private:
  FileStore(FileStoreOptions options, FileLock lock);
  void take(std::string name, const std::string& text, bool has_content);

  FileStoreOptions options_;
  FileLock lock_;
  FileFolder folder_;  // the lane's, once open() has returned
  std::map<std::string, FileHead> files_;
  std::map<std::string, std::string> records_;
  std::set<std::string> loose_;  // contents found by open() that no file leads to
  std::vector<std::string> damage_;
  uint64_t bytes_ = 0, coming_bytes_ = 0;  // of files; of those that are being added
  size_t coming_ = 0;
  DiskLane lane_;  // last: it ends before what it works on
};

}  // namespace runahead
