#include "services/job_store/sqlite_job_store.h"

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "actors/jobs/job_rows.h"
#include "base/limits.h"
#include "base/log.h"
#include "services/job_store/job_recovery.h"
#include "services/job_store/sqlite_database.h"

namespace runahead {
namespace {

constexpr size_t kBatchMax = 256;  // operations of one transaction: bounds the wait of the first

std::unexpected<Error> damaged_job(const std::string& id) {
  return fail(
      ErrorCode::kCorrupt,
      "the row of job " + id + " is damaged; the next start of the service mends the store, and says what is lost");
}

Result<std::shared_ptr<const JobRecord>> record_of(StoredRow row) {
  if (!row.request_ok || !row.result_ok) return damaged_job(row.head.id);
  auto record = std::make_shared<JobRecord>();
  if (!row.result.empty()) record->result = std::make_shared<const StoredResult>(TRY(parse_stored_result(row.result)));
  record->client_json = std::move(row.client);
  record->head = std::move(row.head);
  return record;
}

// What the work of one request needs too much memory for ends that request.
template <class T, class Work>
Result<T> guarded(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  return fail(ErrorCode::kUnavailable, "there is not enough memory for this job; try again later");
}

}  // namespace

Result<std::unique_ptr<SqliteJobStore>> SqliteJobStore::open(const std::filesystem::path& path) {
  Files files{.path = path};
  if (!path.empty()) {
    std::error_code ignored;
    const auto kind = std::filesystem::status(path, ignored).type();
    if (kind != std::filesystem::file_type::not_found && kind != std::filesystem::file_type::regular)
      return fail(ErrorCode::kInvalidConfig, "the job store " + path.string() + " is no regular file; name another one",
                  "job-store");
    Result<FileLock> lock = FileLock::acquire(path.string() + ".lock", std::chrono::milliseconds(0));
    if (!lock && lock.error().code == ErrorCode::kDeadlineExceeded)
      return fail(ErrorCode::kInvalidConfig,
                  "the job store " + path.string() + " is in use by another process; stop it or name another file",
                  "job-store");
    if (!lock)
      return fail(ErrorCode::kInvalidConfig,
                  "the job store " + path.string() + " cannot be opened for writing; check the path and its rights (" +
                      lock.error().message + ")",
                  "job-store");
    files.lock.emplace(std::move(*lock));
  }
  TRY(open_files(files));
  return std::unique_ptr<SqliteJobStore>(new SqliteJobStore(std::move(files)));
}

// The ledger tells whether a damaged file was a job store.
Result<void> SqliteJobStore::open_files(Files& files) {
  const std::string ledger = files.path.string() + "-ledger";
  auto opened = SqliteDatabase::open(files.path);
  const bool damaged = !opened && opened.error().code == ErrorCode::kCorrupt;
  if (!opened && !damaged) return std::unexpected(opened.error());
  const auto refuse = [&] { return fail(ErrorCode::kInvalidConfig, opened.error().message, "job-store"); };
  std::error_code none;
  if (damaged && !std::filesystem::exists(ledger, none)) return refuse();
  if (!files.path.empty()) files.ledger.emplace(TRY(JobLedger::open(ledger)));
  if (damaged && !files.ledger->has_jobs()) return refuse();
  files.database = damaged ? TRY(mend_start(files.path, files.damage)) : std::move(*opened);
  return {};
}

SqliteJobStore::SqliteJobStore(Files files) : files_(std::move(files)), thread_([this] { serve(); }) {}

SqliteJobStore::~SqliteJobStore() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void SqliteJobStore::enqueue(Operation operation) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(operation));
  }
  changed_.notify_one();
}

bool SqliteJobStore::idle() {
  std::lock_guard lock(mutex_);
  return queue_.empty();
}

void SqliteJobStore::serve() {
  for (;;) {
    std::deque<Operation> batch;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      while (!queue_.empty() && batch.size() < kBatchMax) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    run_batch(std::move(batch));
  }
}

void SqliteJobStore::run_batch(std::deque<Operation> batch) {
  Result<void> committed = files_.database->begin();
  std::vector<Completion> completions;
  for (Operation& operation : batch) completions.push_back(operation());
  if (committed) committed = commit_batch();
  if (!committed) files_.database->roll_back();
  const bool wrote = !std::exchange(written_, {}).empty();
  ++transactions_;
  for (Completion& complete : completions) complete(committed);
  if (!committed || !wrote) return;
  if (const Result<void> pruned = prune(); !pruned) log::warn("{}", pruned.error().message);
  if (!idle()) return;
  if (const Result<void> moved = files_.database->checkpoint(); !moved) log::warn("{}", moved.error().message);
}

// First the file, then the ledger: what the ledger has and the file has not was lost, and not merely never written.
Result<void> SqliteJobStore::commit_batch() {
  if (files_.ledger && !written_.empty()) TRY(files_.ledger->reserve(written_.size()));
  TRY(files_.database->commit());
  if (files_.ledger && !written_.empty()) TRY(files_.ledger->append(written_));
  return {};
}

Result<void> SqliteJobStore::prune() {
  if (++commits_ % limits::kJobsPruneEvery != 0) return {};
  const int64_t up_to = TRY(files_.database->last_sequence()) - limits::kJobsKeptMax;
  if (up_to <= 0) return {};
  if (files_.ledger) TRY(files_.ledger->append_pruned(up_to));
  return files_.database->prune(up_to);
}

template <class T>
Task<T> SqliteJobStore::run(std::function<Result<T>()> work) {
  auto initiate = [this](auto handler, std::function<Result<T>()> body) {
    auto executor = asio::get_associated_executor(handler);
    auto resume = [guard = asio::make_work_guard(executor), executor,
                   handler = std::move(handler)](Result<T> result) mutable {
      asio::post(executor, [handler = std::move(handler), result = std::move(result)]() mutable {
        std::move(handler)(std::move(result));
      });
    };
    enqueue([body = std::move(body), resume = std::move(resume)]() mutable -> Completion {
      Result<T> result = guarded<T>(body);
      return [resume = std::move(resume), result = std::move(result)](const Result<void>& committed) mutable {
        resume(committed ? std::move(result) : Result<T>(std::unexpected(committed.error())));
      };
    });
  };
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<T>)>(
      std::move(initiate), asio::use_awaitable, std::move(work));
}

Result<JobStore::Loaded> SqliteJobStore::load() {
  std::promise<Result<Loaded>> promise;
  enqueue([this, &promise]() -> Completion {
    (void)files_.database->commit();  // it has transactions of its own
    Result<Loaded> loaded = load_now();
    Result<void> again = files_.database->begin();
    if (loaded && !again) loaded = std::unexpected(again.error());
    return [&promise, loaded = std::move(loaded)](const Result<void>& committed) mutable {
      promise.set_value(committed ? std::move(loaded) : Result<Loaded>(std::unexpected(committed.error())));
    };
  });
  return promise.get_future().get();
}

Result<JobStore::Loaded> SqliteJobStore::load_now() {
  Loaded loaded;
  if (files_.ledger) {
    RecoveredJobs recovered = TRY(recover_jobs(files_.database, *files_.ledger, files_.path));
    loaded.unfinished = std::move(recovered.unfinished);
    loaded.damage = std::move(files_.damage);
    std::ranges::move(recovered.damage, std::back_inserter(loaded.damage));
  }
  SqliteDatabase& database = *files_.database;
  loaded.epoch = std::max<uint64_t>(TRY(database.epoch()), files_.ledger ? files_.ledger->epoch() : 0) + 1;
  TRY(database.begin());
  TRY(database.set_epoch(loaded.epoch));
  TRY(database.commit());
  if (files_.ledger) TRY(files_.ledger->append_epoch(loaded.epoch));
  TRY(database.checkpoint());
  return loaded;
}

Task<void> SqliteJobStore::write(std::function<Result<LedgerEntry>()> work) {
  return run<void>([this, work = std::move(work)]() -> Result<void> {
    written_.push_back(TRY(files_.database->as_one([&work] { return guarded<LedgerEntry>(work); })));
    return {};
  });
}

Task<void> SqliteJobStore::accept(JobHead head, std::shared_ptr<const StoredRequest> request) {
  return write([this, head = std::move(head), request = std::move(request)] {
    return files_.database->insert(head, request->client_json, serialize(request->request));
  });
}

Task<void> SqliteJobStore::end(JobHead head, std::shared_ptr<const StoredResult> result) {
  return write([this, head = std::move(head), result = std::move(result)] {
    return files_.database->update(head, serialize(*result));
  });
}

Task<void> SqliteJobStore::keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                                std::shared_ptr<const StoredResult> result) {
  return write([this, head = std::move(ended), request = std::move(request), result = std::move(result)] {
    return files_.database->insert(head, request->client_json, serialize(request->request), serialize(*result));
  });
}

// First the ledger: a row that it does not know is taken as it is, and one that is gone would be a loss.
Task<void> SqliteJobStore::remove(std::string id) {
  return run<void>([this, id = std::move(id)]() -> Result<void> {
    if (files_.ledger) TRY(files_.ledger->append_removed(id));
    return files_.database->remove(id);
  });
}

Task<std::shared_ptr<const JobHead>> SqliteJobStore::find_by_key(std::string owner, std::string key) {
  return run<std::shared_ptr<const JobHead>>(
      [this, owner = std::move(owner), key = std::move(key)]() -> Result<std::shared_ptr<const JobHead>> {
        const auto row = TRY(files_.database->find_by_key(owner, key));
        if (!row) return nullptr;
        if (!row->head_ok) return damaged_job(row->head.id);
        return std::make_shared<const JobHead>(std::move(row->head));
      });
}

Task<std::shared_ptr<const JobRecord>> SqliteJobStore::find(std::string id) {
  return run<std::shared_ptr<const JobRecord>>(
      [this, id = std::move(id)]() -> Result<std::shared_ptr<const JobRecord>> {
        const auto row = TRY(files_.database->find(id, SqliteDatabase::Parts::kAll));
        if (!row) return nullptr;
        return record_of(std::move(*row));
      });
}

Task<std::shared_ptr<const StoredRequest>> SqliteJobStore::request(std::string id) {
  return run<std::shared_ptr<const StoredRequest>>(
      [this, id = std::move(id)]() -> Result<std::shared_ptr<const StoredRequest>> {
        const auto row = TRY(files_.database->find(id, SqliteDatabase::Parts::kAll));
        if (!row) return nullptr;
        if (!row->request_ok) return damaged_job(id);
        return std::make_shared<const StoredRequest>(
            StoredRequest{TRY(parse_stored_request(row->request)), std::move(row->client)});
      });
}

Task<std::vector<JobHead>> SqliteJobStore::list(JobQuery query) {
  return run<std::vector<JobHead>>([this, query = std::move(query)]() -> Result<std::vector<JobHead>> {
    int64_t before = std::numeric_limits<int64_t>::max();
    if (!query.after.empty()) {
      const auto row = TRY(files_.database->find(query.after, SqliteDatabase::Parts::kHead));
      if (!row || (!row->head.owner.empty() && row->head.owner != query.owner))
        return fail(ErrorCode::kNotFound, "there is no job " + query.after, "after");
      before = row->sequence;
    }
    return files_.database->list(query.owner, before, query.limit);
  });
}

}  // namespace runahead
