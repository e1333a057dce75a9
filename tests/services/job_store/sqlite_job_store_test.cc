// SqliteJobStore: what was committed is there after a kill, and only that; damage and rivals are told in one sentence.
#include "tests/services/job_store/job_store_fixture.h"

namespace runahead {
namespace {

TEST_F(SqliteJobStoreTest, EpochGrowsWithEveryStart) {
  EXPECT_EQ(open()->load()->epoch, 1u);
  EXPECT_EQ(open()->load()->epoch, 2u);
  EXPECT_EQ(open()->load()->epoch, 3u);
}

TEST_F(SqliteJobStoreTest, RowsComeBackAsTheyWereAndReplaceEachOther) {
  auto store = open();
  ASSERT_TRUE(store->load());
  ASSERT_TRUE(accept(*store, head(1, JobStatus::kQueued, "key-1", "alice")));
  ASSERT_TRUE(accept(*store, head(2), 2));
  const auto stored = *run(io_, store->request("job-1"));
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(stored->client_json, request(1)->client_json);
  EXPECT_EQ(stored->request.prompt, (std::vector<TokenId>{1, 7}));
  EXPECT_EQ(find(*store, "job-1")->result, nullptr) << "it has not ended";
  ASSERT_TRUE(end(*store, head(1, JobStatus::kQueued, "key-1", "alice"), JobStatus::kSucceeded, {4, 5}));
  const auto found = find(*store, "job-1");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->head.status, JobStatus::kSucceeded);
  EXPECT_EQ(found->head.owner, "alice");
  EXPECT_EQ(found->head.request_digest, "digest");
  EXPECT_EQ(found->head.kind, "chat");
  EXPECT_EQ(found->head.completion_tokens, 2);
  EXPECT_EQ(found->head.ended_unix_ms, 77);
  EXPECT_EQ(found->client_json, request(1)->client_json);
  EXPECT_EQ(found->result->tokens[1].token, 5);
  JobHead failing = head(2);
  failing.error = {ErrorCode::kWorkerLost, "a worker died", "p"};
  ASSERT_TRUE(end(*store, failing, JobStatus::kFailed));
  const Error error = *find(*store, "job-2")->head.error;
  EXPECT_EQ(error.code, ErrorCode::kWorkerLost);
  EXPECT_EQ(error.message + error.param, "a worker diedp");
  EXPECT_EQ(find(*store, "job-9"), nullptr);
  EXPECT_EQ(*run(io_, store->request("job-9")), nullptr);
  EXPECT_EQ(run(io_, store->end(head(9), result({}))).error().code, ErrorCode::kCorrupt) << "no row to update";
}

TEST_F(SqliteJobStoreTest, AKeyIsItsOwners) {
  auto store = open();
  ASSERT_TRUE(accept(*store, head(1, JobStatus::kQueued, "k", "alice")));
  ASSERT_TRUE(accept(*store, head(2, JobStatus::kQueued, "k", "bob")));
  EXPECT_EQ((*run(io_, store->find_by_key("alice", "k")))->id, "job-1");
  EXPECT_EQ((*run(io_, store->find_by_key("bob", "k")))->id, "job-2");
  EXPECT_EQ(*run(io_, store->find_by_key("", "k")), nullptr);
  EXPECT_EQ(*run(io_, store->find_by_key("alice", "")), nullptr) << "no key is no key";
}

TEST_F(SqliteJobStoreTest, AListIsNewestFirstByPagesAndShowsOnesOwnJobsAndNobodys) {
  auto store = open();
  for (int i = 0; i < 9; ++i) {
    const char* const owners[] = {"alice", "bob", ""};
    ASSERT_TRUE(accept(*store, head(i, JobStatus::kQueued, "", owners[i % 3])));
  }
  ASSERT_TRUE(end(*store, head(0, JobStatus::kQueued, "", "alice"), JobStatus::kCancelled));  // does not make it new
  const std::vector<std::string> first = {"job-8", "job-6", "job-5"}, second = {"job-3", "job-2", "job-0"};
  EXPECT_EQ(ids(*store, {.owner = "alice", .limit = 3}), first);
  EXPECT_EQ(ids(*store, {.owner = "alice", .limit = 3, .after = "job-5"}), second);
  EXPECT_EQ(ids(*store, {.owner = "alice", .limit = 3, .after = "job-0"}), std::vector<std::string>());
  EXPECT_EQ(ids(*store, {.owner = "", .limit = 9}), (std::vector<std::string>{"job-8", "job-5", "job-2"}));
  for (const char* after : {"job-1", "job-99"})
    EXPECT_EQ(run(io_, store->list({.owner = "alice", .after = after})).error().code, ErrorCode::kNotFound)
        << "one of bob's is none";
}

TEST_F(SqliteJobStoreTest, OnlyUnfinishedJobsAreLoadedInTheirOrder) {
  {
    auto store = open();
    for (int i = 1; i <= 5; ++i) ASSERT_TRUE(accept(*store, head(i)));
    ASSERT_TRUE(end(*store, head(2), JobStatus::kSucceeded));
    ASSERT_TRUE(end(*store, head(3), JobStatus::kCancelled));
    ASSERT_TRUE(end(*store, head(4), JobStatus::kFailed));
  }
  const auto loaded = open()->load();
  EXPECT_TRUE(loaded->damage.empty()) << loaded->damage[0];
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
    static asio::awaitable<void> one(SqliteJobStore& store, JobHead job) {
      const Result<void> committed = co_await store.accept(std::move(job), request(1));
      outcomes.push_back(committed ? "ok" : std::string(name(committed.error().code)));
    }
  };
  for (const JobHead& each : {head(1, JobStatus::kQueued, "k"), head(2, JobStatus::kQueued, "k"), head(3)})
    gate.spawn(Commit::one(*store, each));
  io_.restart();
  io_.run();
  EXPECT_EQ(outcomes, (std::vector<std::string>{"ok", "invalid_argument", "ok"}));
  EXPECT_EQ(ids(*store, {}), (std::vector<std::string>{"job-3", "job-1"}));
}

TEST_F(SqliteJobStoreTest, ManyCommitsShareTransactions) {
  auto store = open();
  AsioClock clock;
  Gate gate(io_.get_executor(), clock);
  struct Commit {
    static asio::awaitable<void> one(SqliteJobStore& store, int number) {
      const Result<void> committed = co_await store.accept(head(number), request(number));
      EXPECT_TRUE(committed);
    }
  };
  for (int i = 0; i < 500; ++i) gate.spawn(Commit::one(*store, i));
  io_.restart();
  io_.run();
  EXPECT_LT(store->transactions(), 100) << "500 commits queued at once are not 500 syncs";
  EXPECT_EQ(ids(*store, {.limit = 1000}).size(), 500u);
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
        if (!run(io, (*store)->accept(head(number), request(number)))) _exit(1);
        if (write(acknowledged[1], &number, sizeof number) != sizeof number) _exit(1);
      }
    }
    close(acknowledged[1]);
    int last = -1, number = 0;
    for (int i = 0; i < 20 + round * 7 && read(acknowledged[0], &number, sizeof number) == sizeof number; ++i)
      last = number;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    while (read(acknowledged[0], &number, sizeof number) == sizeof number) last = number;
    close(acknowledged[0]);
    ASSERT_GE(last, 0) << "the child did not get to work";
    auto store = open();
    const auto loaded = store->load();
    ASSERT_EQ(loaded->epoch, static_cast<uint64_t>(round + 1));
    EXPECT_TRUE(loaded->damage.empty()) << "a kill damages nothing: " << loaded->damage[0];
    for (int i = round * 100'000; i <= last; ++i) ASSERT_NE(find(*store, "job-" + std::to_string(i)), nullptr) << i;
  }
}

TEST_F(SqliteJobStoreTest, SecondProcessIsRefused) {
  auto store = open();
  const auto second = SqliteJobStore::open(path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kInvalidConfig);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
}

TEST_F(SqliteJobStoreTest, ForeignFilesAndPlacesAreRefusedInOneSentence) {
  const auto refused = [&](const std::string& why) {
    const auto store = SqliteJobStore::open(path());
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().code, ErrorCode::kInvalidConfig);
    EXPECT_NE(store.error().message.find(why), std::string::npos) << store.error().message;
    std::filesystem::remove_all(path());
  };
  std::ofstream(path()) << std::string(8192, 'x');
  refused("damaged");
  std::filesystem::create_directory(path());
  refused("no regular file");
  sqlite3* other = nullptr;
  for (const auto& [version, why] :
       {std::pair{0, "no job store"}, {1, "no job store"}, {2, "no job store"}, {3, "damaged"}, {9, "newer"}}) {
    ASSERT_EQ(sqlite3_open(path().c_str(), &other), SQLITE_OK);
    const std::string make = "CREATE TABLE t (x); PRAGMA user_version = " + std::to_string(version);
    ASSERT_EQ(sqlite3_exec(other, make.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(other);
    const std::string before = bytes_of(path());
    (void)SqliteJobStore::open(path());
    EXPECT_TRUE(bytes_of(path()) == before) << "a foreign file is not written to, version " << version;
    EXPECT_FALSE(std::filesystem::exists(ledger()));
    refused(why);
  }
  ASSERT_EQ(sqlite3_open(path().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "PRAGMA user_version = 4", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  refused("newer version");
  EXPECT_EQ(SqliteJobStore::open(folder_ / "no" / "such" / "folder").error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(SqliteJobStore::open("/dev/null").error().code, ErrorCode::kInvalidConfig);
}

TEST_F(SqliteJobStoreTest, AStoreOfAnOlderVersionIsRefusedAndLeftAsItIs) {
  for (const int version : {1, 2}) {
    sqlite3* old = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &old), SQLITE_OK);
    const std::string make =
        "CREATE TABLE jobs (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request_json TEXT NOT NULL); "
        "INSERT INTO jobs VALUES (3, 'job-a', '{}'); PRAGMA user_version = " +
        std::to_string(version);
    ASSERT_EQ(sqlite3_exec(old, make.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(old);
    const std::string before = bytes_of(path());
    const auto store = SqliteJobStore::open(path());
    ASSERT_FALSE(store) << version;
    EXPECT_EQ(store.error().code, ErrorCode::kInvalidConfig);
    EXPECT_NE(store.error().message.find("older version"), std::string::npos) << store.error().message;
    EXPECT_TRUE(bytes_of(path()) == before) << version;
    EXPECT_FALSE(std::filesystem::exists(ledger()));
    std::filesystem::remove(path());
  }
}

TEST_F(SqliteJobStoreTest, OldEndedJobsGoAndAreNotTakenForLost) {
  {
    auto store = open();
    ASSERT_TRUE(store->load());
    for (int i = 1; i <= 3; ++i) ASSERT_TRUE(accept(*store, head(i), i));
    for (int i = 1; i <= 2; ++i) ASSERT_TRUE(end(*store, head(i), JobStatus::kSucceeded, {i}));
  }
  {
    auto database = SqliteDatabase::open(path());
    ASSERT_TRUE(JobLedger::open(ledger())->append_pruned(3));
    ASSERT_TRUE((*database)->prune(3));
  }
  auto store = open();
  const auto loaded = store->load();
  EXPECT_TRUE(loaded->damage.empty()) << loaded->damage[0];
  EXPECT_EQ(ids(*store, {}), std::vector<std::string>{"job-3"}) << "one that has not ended stays";
}

TEST_F(SqliteJobStoreTest, ARemovedJobIsGoneForGoodAndNotTakenForLost) {
  {
    auto store = open();
    ASSERT_TRUE(store->load());
    for (int i = 1; i <= 3; ++i)
      ASSERT_TRUE(run(io_, store->keep(head(i, JobStatus::kSucceeded), request(i), result({i}))));
    ASSERT_TRUE(run(io_, store->remove("job-3"))) << "the last one: the next job has its place";
    ASSERT_TRUE(run(io_, store->remove("job-1")));
    ASSERT_TRUE(run(io_, store->remove("job-none")));
    ASSERT_TRUE(accept(*store, head(4), 4));
    EXPECT_EQ(find(*store, "job-4")->result, nullptr) << "nothing of the one before it";
  }
  auto store = open();
  const auto loaded = store->load();
  EXPECT_TRUE(loaded->damage.empty()) << loaded->damage[0];
  EXPECT_EQ(ids(*store, {}), (std::vector<std::string>{"job-4", "job-2"}));
  const auto kept = find(*store, "job-2");
  ASSERT_NE(kept->result, nullptr);
  EXPECT_EQ(kept->result->tokens[0].token, 2);
  EXPECT_EQ(find(*store, "job-3"), nullptr);
}

// The ledger forgets first: a crash between the two leaves a row that it does not know.
TEST_F(SqliteJobStoreTest, ARemovalThatDidNotEndLeavesAWholeJob) {
  {
    auto store = open();
    ASSERT_TRUE(store->load());
    ASSERT_TRUE(run(io_, store->keep(head(1, JobStatus::kSucceeded), request(1), result({1}))));
  }
  ASSERT_TRUE(JobLedger::open(ledger())->append_removed("job-1"));
  auto store = open();
  EXPECT_TRUE(store->load()->damage.empty());
  EXPECT_NE(find(*store, "job-1")->result, nullptr);
}

TEST_F(SqliteJobStoreTest, WithoutAPathJobsLiveInMemory) {
  auto store = SqliteJobStore::open("");
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->load()->epoch, 1u);
  ASSERT_TRUE(accept(**store, head(1)));
  EXPECT_NE(find(**store, "job-1"), nullptr);
}

}  // namespace
}  // namespace runahead
