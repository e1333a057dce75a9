// A damaged job store: what can be read goes on, and what is lost is said.
#include "tests/services/job_store/job_store_fixture.h"

namespace runahead {
namespace {

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

// All of its rows are on the pages that an empty store has, too.
TEST_F(SqliteJobStoreTest, ADamagedFirstPageCostsASmallStoreNoJob) {
  {
    const auto store = open();
    ASSERT_TRUE(store->load());
    ASSERT_TRUE(accept(*store, head(1)));
  }
  {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file << std::string(4096, 'x');
  }
  const auto store = open();
  const auto loaded = store->load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  ASSERT_EQ(loaded->unfinished.size(), 1u);
  EXPECT_EQ(loaded->unfinished[0].id, "job-1");
  EXPECT_FALSE(loaded->damage.empty());
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
               return (*database)->insert(head(i), request(i)->client_json, serialize(request(i)->request));
             });
    for (int i = 0; i < 3; ++i)
      good = good && commit([&] {
               JobHead ended = head(i, i == 2 ? JobStatus::kCancelled : JobStatus::kSucceeded);
               return (*database)->update(ended, serialize(*result({i, 5})));
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
      kept = kept ||
             (entry.path().filename().string().starts_with("jobs.sqlite-ledger.damaged-") && bytes_of(entry) == text);
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
