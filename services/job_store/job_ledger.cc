#include "services/job_store/job_ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/cache_file.h"
#include "base/crc32c.h"

namespace runahead {
namespace {

enum class Kind : uint32_t { kJob = 1, kEpoch = 2, kPruned = 3, kRemoved = 4 };
constexpr size_t kTextBytes = 40;  // an id has 28, an owner 16

void put_text(std::array<char, kTextBytes>& to, const std::string& from) {
  std::memcpy(to.data(), from.data(), std::min(from.size(), kTextBytes - 1));
}

std::string text_of(const std::array<char, kTextBytes>& from) {
  return {from.begin(), std::find(from.begin(), from.end(), '\0')};
}

}  // namespace

struct JobLedger::Record {
  uint64_t magic = 0x3152454744454C4A;  // "JLEDGER1"
  uint64_t value = 0;                   // the sequence, or the epoch
  int64_t created_unix_ms = 0;
  uint32_t kind = 0;
  uint32_t status = 0;
  uint32_t row_check = 0;
  uint32_t unused = 0;
  std::array<char, kTextBytes> id{}, owner{};
  uint32_t unused_too = 0;
  uint32_t check = 0;  // of all before it, and of its place in the file

  uint32_t check_at(size_t place) const {
    const auto bytes = std::as_bytes(std::span(this, 1)).first(offsetof(Record, check));
    return crc32c(bytes, static_cast<uint32_t>(place));
  }
};

std::unexpected<Error> JobLedger::failed(const std::string& what, int error) const {
  return fail(ErrorCode::kUnavailable,
              "cannot " + what + " the job store's ledger " + path_.string() + ": " + std::strerror(error),
              "job-store");
}

Result<JobLedger> JobLedger::open(const std::filesystem::path& path) {
  static_assert(sizeof(Record) == 128 && std::is_trivially_copyable_v<Record>);
  const bool is_new = access(path.c_str(), F_OK) != 0;
  JobLedger ledger(path, ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct stat info{};
  if (ledger.fd_ < 0 || fstat(ledger.fd_, &info) != 0 || !S_ISREG(info.st_mode))
    return fail(
        ErrorCode::kInvalidConfig,
        "the job store's ledger " + path.string() + " cannot be opened for writing; check the path and its rights",
        "job-store");
  ledger.is_new_ = is_new || info.st_size == 0;
  TRY(ledger.read());
  return ledger;
}

JobLedger::~JobLedger() {
  if (fd_ >= 0) close(fd_);
}

JobLedger::JobLedger(JobLedger&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      is_new_(other.is_new_),
      damaged_(other.damaged_),
      epoch_(other.epoch_),
      records_(other.records_),
      jobs_(std::move(other.jobs_)) {}

Result<void> JobLedger::read() {
  std::array<Record, 512> buffer;
  for (;;) {
    const auto at = static_cast<off_t>(records_ * sizeof(Record));
    const ssize_t got = pread(fd_, buffer.data(), sizeof buffer, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read", errno);
    const size_t whole = static_cast<size_t>(got) / sizeof(Record);
    for (size_t i = 0; i < whole; ++i, ++records_) {
      if (buffer[i].magic == Record{}.magic && buffer[i].check == buffer[i].check_at(records_)) take(buffer[i]);
      else ++damaged_;
    }
    if (whole == 0) {  // what is left is no whole record: an append that did not end, or no ledger at all
      if (records_ == 0 && got > 0) ++damaged_;
      return {};
    }
  }
}

void JobLedger::take(const Record& record) {
  switch (static_cast<Kind>(record.kind)) {
    case Kind::kJob: {
      LedgerEntry& entry = jobs_[text_of(record.id)];
      entry = {.sequence = static_cast<int64_t>(record.value),
               .id = text_of(record.id),
               .owner = text_of(record.owner),
               .status = static_cast<JobStatus>(std::min(record.status, uint32_t{4})),
               .created_unix_ms = record.created_unix_ms,
               .check = record.row_check};
      break;
    }
    case Kind::kEpoch:
      epoch_ = std::max(epoch_, record.value);
      break;
    case Kind::kPruned:
      std::erase_if(jobs_, [&](const auto& job) {
        return has_ended(job.second.status) && job.second.sequence <= static_cast<int64_t>(record.value);
      });
      break;
    case Kind::kRemoved:
      jobs_.erase(text_of(record.id));
      break;
  }
}

Result<void> JobLedger::reserve(size_t entries) {
  const auto at = static_cast<off_t>(records_ * sizeof(Record));
  if (fallocate(fd_, FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(entries * sizeof(Record))) == 0) return {};
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return failed("make room in", errno);
  return {};  // a file system that reserves nothing
}

Result<void> JobLedger::write(std::span<const Record> records) {
  std::vector<Record> checked(records.begin(), records.end());
  for (size_t i = 0; i < checked.size(); ++i) checked[i].check = checked[i].check_at(records_ + i);
  std::span<const std::byte> left = std::as_bytes(std::span(checked));
  auto at = static_cast<off_t>(records_ * sizeof(Record));
  while (!left.empty()) {
    const ssize_t done = pwrite(fd_, left.data(), left.size(), at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return failed("write", errno);
    left = left.subspan(static_cast<size_t>(done));
    at += done;
  }
  if (fdatasync(fd_) != 0) return failed("sync", errno);
  records_ += checked.size();
  return {};
}

JobLedger::Record JobLedger::record_of(const LedgerEntry& entry) {
  Record record;
  record.value = static_cast<uint64_t>(entry.sequence);
  record.created_unix_ms = entry.created_unix_ms;
  record.kind = static_cast<uint32_t>(Kind::kJob);
  record.status = static_cast<uint32_t>(entry.status);
  record.row_check = entry.check;
  put_text(record.id, entry.id);
  put_text(record.owner, entry.owner);
  return record;
}

Result<void> JobLedger::append(std::span<const LedgerEntry> entries) {
  std::vector<Record> records;
  for (const LedgerEntry& entry : entries) records.push_back(record_of(entry));
  return write(records);
}

Result<void> JobLedger::append_epoch(uint64_t epoch) {
  Record record;
  record.kind = static_cast<uint32_t>(Kind::kEpoch);
  record.value = epoch_ = epoch;
  return write(std::span(&record, 1));
}

Result<void> JobLedger::append_pruned(int64_t sequence) {
  Record record;
  record.kind = static_cast<uint32_t>(Kind::kPruned);
  record.value = static_cast<uint64_t>(sequence);
  return write(std::span(&record, 1));
}

Result<void> JobLedger::append_removed(const std::string& id) {
  Record record;
  record.kind = static_cast<uint32_t>(Kind::kRemoved);
  put_text(record.id, id);
  return write(std::span(&record, 1));
}

Result<void> JobLedger::rewrite(std::span<const LedgerEntry> entries, uint64_t epoch) {
  const std::filesystem::path unfinished = path_.string() + ".new";
  JobLedger fresh(unfinished, ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (fresh.fd_ < 0) return failed("write", errno);
  TRY(fresh.append_epoch(epoch));
  TRY(fresh.append(entries));
  if (rename(unfinished.c_str(), path_.c_str()) != 0) return failed("rename", errno);
  std::swap(fd_, fresh.fd_);
  records_ = fresh.records_;
  epoch_ = epoch;
  damaged_ = 0;
  return sync_folder(path_);
}

}  // namespace runahead
