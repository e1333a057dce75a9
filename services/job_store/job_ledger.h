// JobLedger: the witness of the job store: what was accepted and what has ended, in a small file of its own beside the
// SQLite file. SQLite drops the rest of its log at the first frame that does not fit its checksum, and says nothing; a
// row can change on the disk. What the ledger has and the store has not is a loss (services/job_store/job_recovery).
//   file    records of 128 bytes, appended and synced after the store's own commit; each has a CRC32C of its bytes and
//           its place, so that one damaged record is one record. Written anew, and renamed, when it has grown.
//   threads one at a time; blocking.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "actors/jobs/job_store.h"

namespace runahead {

// A job as of its last commit.
struct LedgerEntry {
  int64_t sequence = 0;  // order of submission
  std::string id, owner;
  JobStatus status = JobStatus::kQueued;
  int64_t created_unix_ms = 0;
  uint32_t check = 0;  // of its row
};

class JobLedger {
 public:
  // Makes the file if there is none. kInvalidConfig with what to do if it cannot be written.
  static Result<JobLedger> open(const std::filesystem::path& path);
  ~JobLedger();
  JobLedger(JobLedger&& other) noexcept;
  JobLedger& operator=(JobLedger&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool is_new() const { return is_new_; }
  int64_t damaged_records() const { return damaged_; }
  uint64_t epoch() const { return epoch_; }
  size_t records() const { return records_; }
  bool has_jobs() const { return !jobs_.empty(); }
  // The jobs it had when it was opened, by id. Moved out: it does not keep them.
  std::map<std::string, LedgerEntry> take_jobs() { return std::move(jobs_); }

  // Room on the disk, so that append() does not meet a full one. kUnavailable.
  Result<void> reserve(size_t entries);
  // Durable when it returns.
  Result<void> append(std::span<const LedgerEntry> entries);
  Result<void> append_epoch(uint64_t epoch);
  // Ended jobs up to this sequence are forgotten, before the store deletes them.
  Result<void> append_pruned(int64_t sequence);
  // A job that its owner deletes, before the store does.
  Result<void> append_removed(const std::string& id);
  // Exactly this from now on.
  Result<void> rewrite(std::span<const LedgerEntry> entries, uint64_t epoch);

 private:
  struct Record;
  JobLedger(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::unexpected<Error> failed(const std::string& what, int error) const;
  Result<void> read();
  void take(const Record& record);
  Result<void> write(std::span<const Record> records);
  static Record record_of(const LedgerEntry& entry);

  std::filesystem::path path_;
  int fd_ = -1;
  bool is_new_ = false;
  int64_t damaged_ = 0;
  uint64_t epoch_ = 0;
  size_t records_ = 0;  // in the file
  std::map<std::string, LedgerEntry> jobs_;
};

}  // namespace runahead
