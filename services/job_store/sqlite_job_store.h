// SqliteJobStore: the JobStore of production: one SQLite file in WAL mode, synchronous=FULL, so that a commit that has
// returned survives the process and the machine; and a ledger beside it (services/job_store/job_ledger), which tells at the next
// start what the file should hold. docs/adr/0010-files-that-others-change.md says why.
//   threads  called on the io_context thread; one thread of its own does all I/O and makes all rows, and posts results
//            back. What has queued up while it wrote goes into one transaction (group commit). When nothing waits, the log is
//            moved into the main file: damage to a file then costs what it touches.
//   owner    the files, exclusively: a second process is refused. The callers' io_context outlives the store.
//   limits   the newest kJobsKeptMax ended jobs are kept.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/jobs/job_store.h"
#include "base/cache_file.h"
#include "services/job_store/job_ledger.h"

namespace runahead {

class SqliteDatabase;

class SqliteJobStore final : public JobStore {
 public:
  // Creates the file if it is missing; an empty path means a store in memory. kInvalidConfig with what to do if the
  // file is no job store, is damaged and has no ledger, was made by another version, or is in use by another process.
  static Result<std::unique_ptr<SqliteJobStore>> open(const std::filesystem::path& path);
  ~SqliteJobStore() override;  // writes out what was accepted

  Result<Loaded> load() override;
  Task<void> accept(JobHead head, std::shared_ptr<const StoredRequest> request) override;
  Task<void> end(JobHead head, std::shared_ptr<const StoredResult> result) override;
  Task<void> keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                  std::shared_ptr<const StoredResult> result) override;
  Task<void> remove(std::string id) override;
  Task<std::shared_ptr<const JobHead>> find_by_key(std::string owner, std::string idempotency_key) override;
  Task<std::shared_ptr<const JobRecord>> find(std::string id) override;
  Task<std::shared_ptr<const StoredRequest>> request(std::string id) override;
  Task<std::vector<JobHead>> list(JobQuery query) override;

  int64_t transactions() const { return transactions_; }  // for the test of group commit

 private:
  // Runs inside a transaction; returns what to call when that transaction is durable, or why it is not.
  using Completion = std::move_only_function<void(const Result<void>& committed)>;
  using Operation = std::move_only_function<Completion()>;
  struct Files {
    std::filesystem::path path;  // empty: in memory
    std::optional<FileLock> lock;
    std::unique_ptr<SqliteDatabase> database;
    std::optional<JobLedger> ledger;
    std::vector<std::string> damage;  // found by open(): a sentence each, for load()
  };

  static Result<void> open_files(Files& files);
  explicit SqliteJobStore(Files files);
  template <class T>
  Task<T> run(std::function<Result<T>()> work);
  void enqueue(Operation operation);
  void serve();
  bool idle();
  void run_batch(std::deque<Operation> batch);
  Result<void> commit_batch();
  Result<void> prune();
  Result<Loaded> load_now();
  Task<void> write(std::function<Result<LedgerEntry>()> work);

  Files files_;  // used by thread_ only, once it runs
  std::vector<LedgerEntry> written_;  // by the transaction under way
  int64_t commits_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> queue_;  // bounded by the jobs in work, which JobService bounds
  bool stopping_ = false;
  std::atomic<int64_t> transactions_ = 0;
  std::thread thread_;
};

}  // namespace runahead
