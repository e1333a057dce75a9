// SqliteJobStore: the JobStore of production: one SQLite file in WAL mode, synchronous=FULL, so that a commit that has
// returned survives the process and the machine.
//   threads  called on the io_context thread; one thread of its own does all I/O and posts results back. What has
//   queued up
//            while it wrote goes into one transaction (group commit).
//   owner    the file, exclusively: a second process is refused. The callers' io_context outlives the store.
//   limits   the newest kJobsKeptMax ended jobs are kept.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "actors/job_store.h"

namespace runahead {

class SqliteDatabase;

class SqliteJobStore final : public JobStore {
 public:
  // Creates the file if it is missing; an empty path means a store in memory. kInvalidConfig with what to do if the
  // file is damaged, no job store, made by a newer version, or in use by another process.
  static Result<std::unique_ptr<SqliteJobStore>> open(const std::filesystem::path& path);
  ~SqliteJobStore() override;  // writes out what was accepted

  Result<Loaded> load() override;
  Task<void> commit(JobRow row) override;
  Task<std::shared_ptr<const JobRow>> find(std::string id) override;
  Task<std::shared_ptr<const JobRow>> find_by_key(std::string idempotency_key) override;
  Task<std::vector<JobRow>> list(int32_t limit) override;

  int64_t transactions() const { return transactions_; }  // for the test of group commit

 private:
  // Runs inside a transaction; returns what to call when that transaction is durable, or why it is not.
  using Completion = std::move_only_function<void(const Result<void>& committed)>;
  using Operation = std::move_only_function<Completion(SqliteDatabase&)>;

  explicit SqliteJobStore(std::unique_ptr<SqliteDatabase> database);
  template <class T>
  Task<T> run(std::function<Result<T>(SqliteDatabase&)> work);
  void enqueue(Operation operation);
  void serve();
  void run_batch(std::deque<Operation> batch);

  std::unique_ptr<SqliteDatabase> database_;  // used by thread_ only, once it runs
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> queue_;  // bounded by the jobs in work, which JobService bounds
  bool stopping_ = false;
  std::atomic<int64_t> transactions_ = 0;
  std::thread thread_;
};

}  // namespace runahead
