// SqliteDatabase: the statements of the job store over one connection. One thread at a time. Internal to
// SqliteJobStore and services/job_store/job_recovery.
//   jobs      a row of small columns a job; `check` is a CRC32C of the others, of the job's place, and of the checks of
//             what it has in the other tables, so that a row that was changed on the disk is told from one that was
//             written.
//   requests, results   what is big, each with its own check: actors/jobs/job_rows writes and reads it.
#pragma once

#include <sqlite3.h>

#include <filesystem>
#include <functional>
#include <memory>

#include "actors/jobs/job_store.h"
#include "services/job_store/job_ledger.h"

namespace runahead {

// A row of `jobs` with what goes with it, as it was read. What is not ok() is not to be believed.
struct StoredRow {
  int64_t sequence = 0;
  JobHead head;
  bool head_ok = false;
  std::string client;  // text; empty where it was not asked for
  std::string request, result;  // bytes; likewise
  bool request_ok = false;  // client and request
  bool result_ok = false;  // true as well where there is none yet
  uint32_t check = 0, request_check = 0, result_check = 0;
};

class SqliteDatabase {
 public:
  // kInvalidConfig with what to do if the file is no job store, cannot be written or was made by another version;
  // kCorrupt if it is damaged where SQLite begins to read.
  static Result<std::unique_ptr<SqliteDatabase>> open(const std::filesystem::path& path);

  Result<void> begin();
  Result<void> commit();
  void roll_back();
  // All or nothing of `work`, inside the transaction; kUnavailable if SQLite has given that up (a full disk).
  Result<LedgerEntry> as_one(const std::function<Result<LedgerEntry>()>& work);
  // All that is committed is in the main file, and the log is empty.
  Result<void> checkpoint();

  // Nothing if the file is whole, else what is wrong with it: one line of SQLite's.
  std::string structural_damage();
  bool was_empty() const { return was_empty_; }  // made by this open()

  // Zero if its row is damaged.
  Result<uint64_t> epoch();
  Result<void> set_epoch(uint64_t epoch);

  // sequence: 0 for the next one.
  Result<LedgerEntry> insert(const JobHead& head, const std::string& client, const std::string& request,
                             const std::string& result = {}, int64_t sequence = 0);
  // kCorrupt if the row is not there or damaged.
  Result<LedgerEntry> update(const JobHead& head, const std::string& result);

  enum class Parts { kHead, kAll };
  Result<std::unique_ptr<StoredRow>> find(const std::string& id, Parts parts);
  Result<std::unique_ptr<StoredRow>> find_by_key(const std::string& owner, const std::string& key);
  Result<std::unique_ptr<StoredRow>> at(int64_t sequence, Parts parts);
  Result<std::vector<JobHead>> list(const std::string& owner, int64_t before, int32_t limit);
  // Every row that can be reached, from the first on, or from the last on; ends early where the file is damaged.
  Result<std::vector<int64_t>> sequences(bool backwards);

  Result<int64_t> last_sequence();
  // With all that it has in the other tables.
  Result<void> remove(const std::string& id);
  // Ended jobs up to this one go.
  Result<void> prune(int64_t sequence);

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  SqliteDatabase(std::unique_ptr<sqlite3, Close> handle, std::string name)
      : handle_(std::move(handle)), name_(std::move(name)) {}
  std::unexpected<Error> failed(int code) const;
  Result<void> execute(const char* sql);
  Result<Statement> prepare(const char* sql);
  Result<int64_t> integer(const char* sql);
  Result<std::string> schema();
  static std::string schema_of_a_new_one();
  Result<void> check_kind();  // reads only
  Result<void> make_tables();
  Result<void> put_head(const JobHead& head, int64_t sequence, uint32_t check, uint32_t request_check,
                        uint32_t result_check);
  Result<std::unique_ptr<StoredRow>> one(Statement statement, Parts parts);
  Result<void> put_result(int64_t sequence, const std::string& result);
  Result<void> read_parts(StoredRow& row);

  std::unique_ptr<sqlite3, Close> handle_;
  std::string name_;  // of the file, for errors
  bool was_empty_ = false;
};

}  // namespace runahead
