#include "services/sqlite_job_store.h"

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <utility>

#include "services/sqlite_database.h"

namespace runahead {
namespace {

constexpr size_t kBatchMax = 256;  // operations of one transaction: bounds the wait of the first

}  // namespace

Result<std::unique_ptr<SqliteJobStore>> SqliteJobStore::open(const std::filesystem::path& path) {
  std::unique_ptr<SqliteDatabase> database = TRY(SqliteDatabase::open(path));
  return std::unique_ptr<SqliteJobStore>(new SqliteJobStore(std::move(database)));
}

SqliteJobStore::SqliteJobStore(std::unique_ptr<SqliteDatabase> database)
    : database_(std::move(database)), thread_([this] { serve(); }) {}

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
  Result<void> committed = database_->begin();
  std::vector<Completion> completions;
  for (Operation& operation : batch) completions.push_back(operation(*database_));
  if (committed) committed = database_->commit();
  if (!committed) database_->roll_back();
  ++transactions_;
  for (Completion& complete : completions) complete(committed);
}

template <class T>
Task<T> SqliteJobStore::run(std::function<Result<T>(SqliteDatabase&)> work) {
  auto initiate = [this](auto handler, std::function<Result<T>(SqliteDatabase&)> body) {
    auto executor = asio::get_associated_executor(handler);
    auto resume = [guard = asio::make_work_guard(executor), executor,
                   handler = std::move(handler)](Result<T> result) mutable {
      asio::post(executor, [handler = std::move(handler), result = std::move(result)]() mutable {
        std::move(handler)(std::move(result));
      });
    };
    enqueue([body = std::move(body), resume = std::move(resume)](SqliteDatabase& database) mutable -> Completion {
      Result<T> result = body(database);
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
  enqueue([&promise](SqliteDatabase& database) -> Completion {
    return [&promise, loaded = database.load()](const Result<void>& committed) mutable {
      promise.set_value(committed ? std::move(loaded) : Result<Loaded>(std::unexpected(committed.error())));
    };
  });
  return promise.get_future().get();
}

Task<void> SqliteJobStore::commit(JobRow row) {
  return run<void>([row = std::move(row)](SqliteDatabase& database) { return database.put(row); });
}

Task<std::shared_ptr<const JobRow>> SqliteJobStore::find(std::string id) {
  return run<std::shared_ptr<const JobRow>>(
      [id = std::move(id)](SqliteDatabase& database) { return database.find(id); });
}

Task<std::shared_ptr<const JobRow>> SqliteJobStore::find_by_key(std::string key) {
  return run<std::shared_ptr<const JobRow>>(
      [key = std::move(key)](SqliteDatabase& database) { return database.find_by_key(key); });
}

Task<std::vector<JobRow>> SqliteJobStore::list(int32_t limit) {
  return run<std::vector<JobRow>>([limit](SqliteDatabase& database) { return database.list(limit); });
}

}  // namespace runahead
