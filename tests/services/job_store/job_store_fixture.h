// What tests of the job store share: jobs to put in, and a store in a folder of its own.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>
#include <optional>

#include "actors/jobs/job_rows.h"
#include "base/async/gate.h"
#include "services/job_store/job_ledger.h"
#include "services/job_store/sqlite_database.h"
#include "services/job_store/sqlite_job_store.h"

namespace runahead {

inline JobHead head(int number, JobStatus status = JobStatus::kQueued, std::string key = "", std::string owner = "") {
  return {.id = "job-" + std::to_string(number),
          .owner = std::move(owner),
          .idempotency_key = std::move(key),
          .request_digest = "digest",
          .kind = "chat",
          .status = status,
          .created_unix_ms = 1000 + number,
          .prompt_tokens = 2};
}

inline std::shared_ptr<const StoredRequest> request(int number) {
  StoredRequest stored{.request = {.prompt = {number, 7}, .max_new_tokens = 3},
                       .client_json = std::string("a\0b\"\xC3\xA9", 6)};
  return std::make_shared<const StoredRequest>(std::move(stored));
}

inline std::shared_ptr<const StoredResult> result(std::vector<TokenId> tokens) {
  auto stored = std::make_shared<StoredResult>();
  for (const TokenId token : tokens) stored->tokens.push_back({.token = token, .logprob = -1});
  stored->finished = FinishedEvent{.reason = FinishReason::kLength};
  return stored;
}

// Runs one coroutine to its end.
template <class T>
inline T run(asio::io_context& io, asio::awaitable<T> body) {
  std::optional<T> result;
  asio::co_spawn(io, std::move(body), [&](std::exception_ptr, T value) { result.emplace(std::move(value)); });
  io.restart();
  io.run();
  return std::move(*result);
}

inline std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class SqliteJobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/jobs-XXXXXX";
    folder_ = mkdtemp(folder.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path path() const { return folder_ / "jobs.sqlite"; }
  std::filesystem::path ledger() const { return folder_ / "jobs.sqlite-ledger"; }
  std::unique_ptr<SqliteJobStore> open() {
    auto store = SqliteJobStore::open(path());
    EXPECT_TRUE(store) << store.error().message;
    return store ? std::move(*store) : nullptr;
  }
  Result<void> accept(SqliteJobStore& store, JobHead job, int number = 1) {
    return run(io_, store.accept(std::move(job), request(number)));
  }
  Result<void> end(SqliteJobStore& store, JobHead job, JobStatus status, std::vector<TokenId> tokens = {}) {
    job.status = status;
    job.ended_unix_ms = 77;
    job.completion_tokens = static_cast<int32_t>(tokens.size());
    return run(io_, store.end(std::move(job), result(std::move(tokens))));
  }
  std::shared_ptr<const JobRecord> find(SqliteJobStore& store, const std::string& id) {
    auto found = run(io_, store.find(id));
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : nullptr;
  }
  std::vector<std::string> ids(SqliteJobStore& store, JobQuery query) {
    const auto heads = run(io_, store.list(std::move(query)));
    EXPECT_TRUE(heads) << heads.error().message;
    std::vector<std::string> all;
    for (const JobHead& job : *heads) all.push_back(job.id);
    return all;
  }

  std::filesystem::path folder_;
  asio::io_context io_{1};
};

}  // namespace runahead
