// SqliteJobStore: what was committed is there after a kill, and only that; damage and rivals are told in one sentence.
#include "services/job_store/sqlite_job_store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>
#include <optional>

#include "actors/jobs/job_json.h"
#include "base/async/gate.h"
#include "services/job_store/job_ledger.h"
#include "services/job_store/sqlite_database.h"

namespace runahead {
namespace {

JobHead head(int number, JobStatus status = JobStatus::kQueued, std::string key = "", std::string owner = "") {
  return {.id = "job-" + std::to_string(number),
          .owner = std::move(owner),
          .idempotency_key = std::move(key),
          .request_digest = "digest",
          .kind = "chat",
          .status = status,
          .created_unix_ms = 1000 + number,
          .prompt_tokens = 2};
}

std::shared_ptr<const StoredRequest> request(int number) {
  StoredRequest stored{.request = {.prompt = {number, 7}, .max_new_tokens = 3}, .client_json = std::string("a\0b\"\xC3\xA9", 6)};
  return std::make_shared<const StoredRequest>(std::move(stored));
}

std::shared_ptr<const StoredResult> result(std::vector<TokenId> tokens) {
  auto stored = std::make_shared<StoredResult>();
  for (const TokenId token : tokens) stored->tokens.push_back({.token = token, .logprob = -1});
  stored->finished = FinishedEvent{.reason = FinishReason::kLength};
  return stored;
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

std::string bytes_of(const std::filesystem::path& file) {
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
  for (const auto& [version, why] : {std::pair{0, "no job store"}, {1, "no job store"}, {2, "damaged"}, {9, "newer"}}) {
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
  ASSERT_EQ(sqlite3_exec(other, "PRAGMA user_version = 3", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  refused("newer version");
  EXPECT_EQ(SqliteJobStore::open(folder_ / "no" / "such" / "folder").error().code, ErrorCode::kInvalidConfig);
  EXPECT_EQ(SqliteJobStore::open("/dev/null").error().code, ErrorCode::kInvalidConfig);
}

TEST_F(SqliteJobStoreTest, AStoreOfVersion1IsBroughtUpToDate) {
  sqlite3* old = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &old), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(old, R"sql(
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('epoch', 41);
    CREATE TABLE jobs (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, idempotency_key TEXT NOT NULL,
      status INTEGER NOT NULL, request_json TEXT NOT NULL, result_json TEXT NOT NULL, created_unix_ms INTEGER NOT NULL,
      ended_unix_ms INTEGER NOT NULL);
    CREATE UNIQUE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key <> '';
    CREATE INDEX jobs_unfinished ON jobs (sequence) WHERE status < 2;
    INSERT INTO jobs VALUES (3, 'job-a', 'k', 0,
      '{"client":"{\"chat\":true}","cuts":[],"deadline_ns":0,"external_id":"job-a","max_new_tokens":3,
        "prompt":[4,5,6],"sampling":{"frequency_penalty":0.0,"logit_bias":[],"min_p":0.0,"presence_penalty":0.0,
        "repetition_penalty":1.0,"seed":9,"temperature":1.0,"top_k":0,"top_logprobs":0,"top_p":1.0},
        "stop_tokens":[],"strategy":"single","workers_max":0}', '', 10, 0);
    INSERT INTO jobs VALUES (5, 'job-b', '', 3, '{"client":"{}","prompt":[1]}',
      '{"tokens":[[1,-0.5]],"error":{"code":17,"message":"why","param":""}}', 11, 12);
    PRAGMA user_version = 1;)sql", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(old);
  auto store = open();
  const auto loaded = store->load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_TRUE(loaded->damage.empty()) << loaded->damage[0];
  EXPECT_EQ(loaded->epoch, 42u);
  ASSERT_EQ(loaded->unfinished.size(), 1u);
  EXPECT_EQ(loaded->unfinished[0].id, "job-a");
  EXPECT_EQ(loaded->unfinished[0].kind, "chat");
  EXPECT_EQ(loaded->unfinished[0].prompt_tokens, 3);
  EXPECT_EQ((*run(io_, store->request("job-a")))->request.prompt, (std::vector<TokenId>{4, 5, 6}));
  EXPECT_EQ((*run(io_, store->find_by_key("", "k")))->request_digest, "") << "nobody kept it";
  const auto failed = find(*store, "job-b");
  EXPECT_EQ(failed->head.error->code, ErrorCode::kInternal);
  EXPECT_EQ(failed->head.error->message, "why");
  EXPECT_EQ(failed->result->tokens.size(), 1u);
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

TEST_F(SqliteJobStoreTest, WithoutAPathJobsLiveInMemory) {
  auto store = SqliteJobStore::open("");
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->load()->epoch, 1u);
  ASSERT_TRUE(accept(**store, head(1)));
  EXPECT_NE(find(**store, "job-1"), nullptr);
}

// Damage. A process is killed, one file is changed, and the store is opened again: every job is there as it was, or its
// loss is said.
class DamagedStoreTest : public SqliteJobStoreTest {
 protected:
  static constexpr int kJobs = 15;

  // What a process that accepted 15 jobs, and ended three of them, leaves when it is killed. Its files are kept in
  // `whole`, so that each case begins with the same.
  void SetUp() override {
    SqliteJobStoreTest::SetUp();
    const pid_t child = fork();
    if (child == 0) {
      auto store = SqliteJobStore::open(path());
      asio::io_context io(1);
      bool good = (*store)->load().has_value();
      for (int i = 0; i < kJobs; ++i) good = good && run(io, (*store)->accept(head(i), request(i)));
      for (int i = 0; i < 3; ++i) {
        JobHead ended = head(i, i == 2 ? JobStatus::kCancelled : JobStatus::kSucceeded);
        good = good && run(io, (*store)->end(ended, result({i, 5})));
      }
      kill(getpid(), good ? SIGKILL : SIGABRT);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_EQ(WTERMSIG(status), SIGKILL);
    std::filesystem::copy(folder_, whole_, std::filesystem::copy_options::recursive);
  }
  void TearDown() override {
    std::filesystem::remove_all(whole_);
    SqliteJobStoreTest::TearDown();
  }
  void restore() {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(whole_, folder_, std::filesystem::copy_options::recursive);
  }
  static void flip(const std::filesystem::path& file, int64_t byte, int bit) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(byte);
    const char changed = static_cast<char>(stream.get() ^ (1 << bit));
    stream.seekp(byte);
    stream.put(changed);
  }
  // How many jobs are as they were; the others must have been told by name, and be shown as failed.
  int judge(const std::string& what) {
    SCOPED_TRACE(what);
    const auto store = SqliteJobStore::open(path());
    EXPECT_TRUE(store) << store.error().message;
    if (!store) return 0;
    const auto loaded = (*store)->load();
    EXPECT_TRUE(loaded) << loaded.error().message;
    if (!loaded) return 0;
    std::string said;
    for (const std::string& sentence : loaded->damage) said += sentence + "\n";
    int whole = 0;
    for (int i = 0; i < kJobs; ++i) {
      const std::string id = "job-" + std::to_string(i);
      const auto found = find(**store, id);
      const auto stored = run(io_, (*store)->request(id));
      const bool as_it_was = found && stored && *stored && (*stored)->request.prompt == std::vector<TokenId>{i, 7} &&
                             found->client_json == request(i)->client_json && found->head.prompt_tokens == 2 &&
                             found->head.created_unix_ms == 1000 + i && status_fits(i, *found);
      whole += as_it_was;
      if (as_it_was) continue;
      EXPECT_NE(said.find("job " + id + " "), std::string::npos) << id << " is not said to be lost:\n" << said;
      EXPECT_TRUE(found && found->head.status == JobStatus::kFailed && found->head.error->code == ErrorCode::kCorrupt)
          << id << ", status " << (found ? static_cast<int>(found->head.status) : -1);
    }
    const auto again = open_again(*store);
    EXPECT_TRUE(again.empty()) << "what was said once is settled: " << again;
    return whole;
  }

 private:
  // One whose result was lost runs again; one that was cancelled does not.
  static bool status_fits(int number, const JobRecord& found) {
    if (number == 2) return found.head.status == JobStatus::kCancelled;
    if (found.head.status == JobStatus::kQueued) return true;
    return number < 2 && found.head.status == JobStatus::kSucceeded && found.result->tokens[0].token == number;
  }
  std::string open_again(const std::unique_ptr<SqliteJobStore>& store) {
    const_cast<std::unique_ptr<SqliteJobStore>&>(store).reset();
    const auto loaded = open()->load();
    if (!loaded) return loaded.error().message;
    return loaded->damage.empty() ? "" : loaded->damage.front();
  }

 protected:
  const std::filesystem::path whole_ = std::string(::testing::TempDir()) + "/whole-" + std::to_string(getpid());
};

TEST_F(DamagedStoreTest, ABitAnywhereInTheFileCostsWhatItTouchesAndIsSaid) {
  EXPECT_EQ(judge("untouched"), kJobs);
  restore();
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path()));
  ASSERT_GT(bytes, 4096);
  constexpr int kFlips = 80;
  for (int i = 0; i < kFlips; ++i) {
    const int64_t byte = 100 + (bytes - 100) * i / kFlips + i % 7;
    flip(path(), byte, i % 8);
    judge("byte " + std::to_string(byte) + " bit " + std::to_string(i % 8));
    restore();
  }
}

TEST_F(DamagedStoreTest, ADamagedFirstPageCostsNoJob) {
  for (int byte = 0; byte < 100; ++byte) {  // the file's header
    flip(path(), byte, byte % 8);
    EXPECT_EQ(judge("header byte " + std::to_string(byte)), kJobs);
    restore();
  }
  for (int byte = 100; byte < 4096; byte += 111) {
    flip(path(), byte, byte % 8);
    EXPECT_EQ(judge("byte " + std::to_string(byte)), kJobs) << byte;
    restore();
  }
  for (const char rubbish : {'\0', '\x5a', '\xff'}) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file << std::string(4096, rubbish);
    file.close();
    EXPECT_EQ(judge("a first page of rubbish"), kJobs);
    restore();
  }
}

// The log of a store that was killed before it was moved into the file, which is when nothing waits: SQLite drops all
// from the flipped frame on.
TEST_F(DamagedStoreTest, ABitInTheLogIsSaidThoughSqliteDropsWhatFollowsInSilence) {
  std::filesystem::remove_all(folder_);
  std::filesystem::create_directory(folder_);
  const pid_t child = fork();
  if (child == 0) {
    auto database = SqliteDatabase::open(path());
    auto log = JobLedger::open(ledger());
    const auto commit = [&](auto change) {
      (void)(*database)->begin();
      const Result<LedgerEntry> entry = change();
      return entry && (*database)->commit() && log->append(std::span(&*entry, 1));
    };
    bool good = log->append_epoch(1).has_value();
    for (int i = 0; i < kJobs; ++i)
      good = good && commit([&] {
               return (*database)->insert(head(i), request(i)->client_json, to_json(request(i)->request));
             });
    for (int i = 0; i < 3; ++i)
      good = good && commit([&] {
               JobHead ended = head(i, i == 2 ? JobStatus::kCancelled : JobStatus::kSucceeded);
               return (*database)->update(ended, to_json(*result({i, 5})));
             });
    kill(getpid(), good ? SIGKILL : SIGABRT);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
  std::filesystem::remove_all(whole_);
  std::filesystem::copy(folder_, whole_, std::filesystem::copy_options::recursive);
  const std::filesystem::path log = path().string() + "-wal";
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(log));
  ASSERT_GT(bytes, 4096);
  constexpr int kFlips = 40;
  int lost_all = 0;
  for (int i = 0; i < kFlips; ++i) {
    flip(log, bytes * i / kFlips, i % 8);
    lost_all += judge("byte " + std::to_string(bytes * i / kFlips)) == 0;
    restore();
  }
  EXPECT_GT(lost_all, 0) << "the first frames carry all others";
}

TEST_F(DamagedStoreTest, CutMissingAndForeignFilesAreSaid) {
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path()));
  for (const int64_t size : {int64_t{0}, int64_t{50}, int64_t{4096}, bytes / 2, bytes - 4096, bytes - 1}) {
    std::filesystem::resize_file(path(), static_cast<uintmax_t>(size));
    judge("cut to " + std::to_string(size));
    restore();
  }
  std::filesystem::remove(path());
  EXPECT_EQ(judge("removed"), 0);
  restore();
  std::filesystem::copy_file(ledger(), path(), std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(judge("another file"), 0);
  restore();
  std::ofstream(path()) << std::string(100'000, 'x');
  std::filesystem::remove(ledger());
  EXPECT_NE(SqliteJobStore::open(path()).error().message.find("damaged"), std::string::npos);
}

TEST_F(DamagedStoreTest, ADamagedLedgerCostsNoJob) {
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(ledger()));
  for (int i = 0; i < 30; ++i) {
    flip(ledger(), bytes * i / 30 + i % 11, i % 8);
    EXPECT_EQ(judge("ledger byte " + std::to_string(bytes * i / 30 + i % 11)), kJobs);
    restore();
  }
  for (const int64_t size : {int64_t{0}, int64_t{100}, int64_t{128}, bytes / 2, bytes - 1}) {
    std::filesystem::resize_file(ledger(), static_cast<uintmax_t>(size));
    EXPECT_EQ(judge("ledger cut to " + std::to_string(size)), kJobs);
    restore();
  }
  std::filesystem::remove(ledger());
  auto store = open();
  const auto loaded = store->load();
  ASSERT_EQ(loaded->damage.size(), 1u);
  EXPECT_NE(loaded->damage[0].find("is missing"), std::string::npos);
  EXPECT_GT(loaded->epoch, 1u) << "the epoch is in both files";
}

TEST_F(DamagedStoreTest, AForeignFileInTheLedgersPlaceIsKept) {
  for (const std::string& text : {std::string("notes"), std::string(990, 'x')}) {
    std::ofstream(ledger()) << text;
    EXPECT_EQ(judge("a foreign ledger"), kJobs);
    bool kept = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      kept = kept || (entry.path().filename().string().starts_with("jobs.sqlite-ledger.damaged-") && bytes_of(entry) == text);
    EXPECT_TRUE(kept) << text.size();
    restore();
  }
}

TEST_F(DamagedStoreTest, TheDamagedFileIsKept) {
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path()));
  std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(bytes / 2);
  file << std::string(4096, '\x5a');
  file.close();
  judge("a page of rubbish");
  int kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_))
    kept += entry.path().filename().string().starts_with("jobs.sqlite.damaged-");
  EXPECT_EQ(kept, 1);
}

}  // namespace
}  // namespace runahead
