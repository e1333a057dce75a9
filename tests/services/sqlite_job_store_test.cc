// SqliteJobStore: what was committed is there after a kill, and only that; damage and rivals are told in one sentence.
#include "services/sqlite_job_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>

#include "actors/gate.h"

namespace runahead {
namespace {

JobRow row(int number, JobStatus status = JobStatus::kQueued, std::string key = "") {
  return {"job-" + std::to_string(number), std::move(key), status, "{\"n\":" + std::to_string(number) + "}", "", 1000 + number, 0};
}

// Runs one coroutine to its end.
template <class T>
T run(asio::io_context& io, asio::awaitable<T> body) {
  std::optional<T> result;
  asio::co_spawn(io, std::move(body), [&](std::exception_ptr, T value) { result.emplace(std::move(value)); });
  io.restart();
  io.run();
  return std::move(*result);
}

class SqliteJobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = ::testing::TempDir() + "/jobs-XXXXXX";
    folder_ = mkdtemp(folder.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path path() const { return folder_ / "jobs.sqlite"; }
  std::unique_ptr<SqliteJobStore> open() {
    auto store = SqliteJobStore::open(path());
    EXPECT_TRUE(store) << store.error().message;
    return store ? std::move(*store) : nullptr;
  }

  std::filesystem::path folder_;
  asio::io_context io_{1};
};

TEST_F(SqliteJobStoreTest, EpochGrowsWithEveryStart) {
  EXPECT_EQ(open()->load()->epoch, 1u);
  EXPECT_EQ(open()->load()->epoch, 2u);
  EXPECT_EQ(open()->load()->epoch, 3u);
}

TEST_F(SqliteJobStoreTest, RowsComeBackAsTheyWereAndReplaceEachOther) {
  auto store = open();
  ASSERT_TRUE(store->load());
  JobRow first = row(1, JobStatus::kQueued, "key-1");
  first.request_json = std::string("a\0b\"\xC3\xA9", 6);
  ASSERT_TRUE(run(io_, store->commit(first)));
  ASSERT_TRUE(run(io_, store->commit(row(2))));
  first.status = JobStatus::kSucceeded;
  first.result_json = "{}";
  first.ended_unix_ms = 77;
  ASSERT_TRUE(run(io_, store->commit(first)));
  for (const auto& found : {*run(io_, store->find("job-1")), *run(io_, store->find_by_key("key-1"))}) {
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->request_json, first.request_json);
    EXPECT_EQ(found->status, JobStatus::kSucceeded);
    EXPECT_EQ(found->ended_unix_ms, 77);
  }
  EXPECT_EQ(*run(io_, store->find("job-9")), nullptr);
  EXPECT_EQ(*run(io_, store->find_by_key("")), nullptr) << "no key is no key";
  const auto list = *run(io_, store->list(10));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].id, "job-2") << "newest first; an update does not make a job new";
  EXPECT_EQ(run(io_, store->list(1))->size(), 1u);
}

TEST_F(SqliteJobStoreTest, OnlyUnfinishedJobsAreLoaded) {
  {
    auto store = open();
    ASSERT_TRUE(run(io_, store->commit(row(1, JobStatus::kRunning))));
    ASSERT_TRUE(run(io_, store->commit(row(2, JobStatus::kSucceeded))));
    ASSERT_TRUE(run(io_, store->commit(row(3, JobStatus::kCancelled))));
    ASSERT_TRUE(run(io_, store->commit(row(4, JobStatus::kFailed))));
    ASSERT_TRUE(run(io_, store->commit(row(5))));
  }
  const auto loaded = open()->load();
  ASSERT_EQ(loaded->unfinished.size(), 2u);
  EXPECT_EQ(loaded->unfinished[0].id, "job-1");
  EXPECT_EQ(loaded->unfinished[1].id, "job-5");
}

TEST_F(SqliteJobStoreTest, SameKeyTwiceIsRefusedAndOthersOfTheGroupAreKept) {
  auto store = open();
  AsioClock clock;
  Gate gate(io_.get_executor(), clock);
  static std::vector<std::string> outcomes;
  outcomes.clear();
  struct Commit {
    static asio::awaitable<void> one(SqliteJobStore& store, JobRow row) {
      const Result<void> committed = co_await store.commit(std::move(row));
      outcomes.push_back(committed ? "ok" : std::string(name(committed.error().code)));
    }
  };
  for (const JobRow& each : {row(1, JobStatus::kQueued, "k"), row(2, JobStatus::kQueued, "k"), row(3)})
    gate.spawn(Commit::one(*store, each));
  io_.restart();
  io_.run();
  EXPECT_EQ(outcomes, (std::vector<std::string>{"ok", "invalid_argument", "ok"}));
  EXPECT_EQ(run(io_, store->list(10))->size(), 2u);
}

TEST_F(SqliteJobStoreTest, ManyCommitsShareTransactions) {
  auto store = open();
  AsioClock clock;
  Gate gate(io_.get_executor(), clock);
  struct Commit {
    static asio::awaitable<void> one(SqliteJobStore& store, int number) {
      const Result<void> committed = co_await store.commit(row(number));
      EXPECT_TRUE(committed);
    }
  };
  for (int i = 0; i < 500; ++i) gate.spawn(Commit::one(*store, i));
  io_.restart();
  io_.run();
  EXPECT_LT(store->transactions(), 100) << "500 commits queued at once are not 500 syncs";
  EXPECT_EQ(run(io_, store->list(1000))->size(), 500u);
}

// The child says the number of each row once its commit has returned, and is killed in the middle of the next ones.
TEST_F(SqliteJobStoreTest, KilledProcessKeepsEverythingThatWasAcknowledged) {
  for (int round = 0; round < 5; ++round) {
    int acknowledged[2];
    ASSERT_EQ(pipe(acknowledged), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto store = SqliteJobStore::open(path());
      asio::io_context io(1);
      for (int i = 0;; ++i) {
        const int number = round * 100'000 + i;
        if (!run(io, (*store)->commit(row(number)))) _exit(1);
        if (write(acknowledged[1], &number, sizeof number) != sizeof number) _exit(1);
      }
    }
    close(acknowledged[1]);
    int last = -1, number = 0;
    for (int i = 0; i < 20 + round * 7 && read(acknowledged[0], &number, sizeof number) == sizeof number; ++i) last = number;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    while (read(acknowledged[0], &number, sizeof number) == sizeof number) last = number;
    close(acknowledged[0]);
    ASSERT_GE(last, 0) << "the child did not get to work";
    auto store = open();
    ASSERT_EQ(store->load()->epoch, static_cast<uint64_t>(round + 1));
    for (int i = round * 100'000; i <= last; ++i) ASSERT_NE(*run(io_, store->find("job-" + std::to_string(i))), nullptr) << i;
  }
}

TEST_F(SqliteJobStoreTest, SecondProcessIsRefused) {
  auto store = open();
  const auto second = SqliteJobStore::open(path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kInvalidConfig);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
}

TEST_F(SqliteJobStoreTest, DamageAndForeignFilesAreToldInOneSentence) {
  std::ofstream(path()) << std::string(8192, 'x');
  EXPECT_NE(SqliteJobStore::open(path()).error().message.find("damaged"), std::string::npos);
  std::filesystem::remove(path());
  {
    auto store = open();
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(run(io_, store->commit(row(i))));
  }
  std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096);
  file << std::string(12'000, '\x5a');
  file.close();
  const auto reopened = SqliteJobStore::open(path());
  const bool refused = !reopened || !(*reopened)->load();
  EXPECT_TRUE(refused) << "a page of rubbish is found before anything is served";
  EXPECT_EQ(SqliteJobStore::open(folder_ / "no" / "such" / "folder").error().code, ErrorCode::kInvalidConfig);
}

TEST_F(SqliteJobStoreTest, WithoutAPathJobsLiveInMemory) {
  auto store = SqliteJobStore::open("");
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->load()->epoch, 1u);
  ASSERT_TRUE(run(io_, (*store)->commit(row(1))));
  EXPECT_NE(*run(io_, (*store)->find("job-1")), nullptr);
}

}  // namespace
}  // namespace runahead
