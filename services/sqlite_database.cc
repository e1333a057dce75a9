#include "services/sqlite_database.h"

#include "base/limits.h"

namespace runahead {
namespace {

constexpr int64_t kSchemaVersion = 1;
constexpr int64_t kPruneEvery = 1024;  // puts between two looks at kJobsKeptMax

constexpr const char* kSchema = R"sql(
  CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  INSERT INTO meta VALUES ('epoch', 0);
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY,  -- order of submission
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL,
    status INTEGER NOT NULL,
    request_json TEXT NOT NULL,
    result_json TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER NOT NULL);
  CREATE UNIQUE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key <> '';
  CREATE INDEX jobs_unfinished ON jobs (sequence) WHERE status < 2;
  PRAGMA user_version = 1;
)sql";

// In the order of JobRow's fields.
constexpr const char* kColumns =
    "id, idempotency_key, status, request_json, result_json, created_unix_ms, ended_unix_ms";

std::string select(const char* rest) {
  return std::string("SELECT ") + kColumns + " FROM jobs " + rest;
}

std::string text(sqlite3_stmt* statement, int column) {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return bytes == nullptr ? "" : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
}

void bind(sqlite3_stmt* statement, int index, const std::string& value) {
  sqlite3_bind_text64(statement, index, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

JobRow row_of(sqlite3_stmt* statement) {
  JobRow row;
  row.id = text(statement, 0);
  row.idempotency_key = text(statement, 1);
  row.status = static_cast<JobStatus>(sqlite3_column_int(statement, 2));
  row.request_json = text(statement, 3);
  row.result_json = text(statement, 4);
  row.created_unix_ms = sqlite3_column_int64(statement, 5);
  row.ended_unix_ms = sqlite3_column_int64(statement, 6);
  return row;
}

}  // namespace

std::unexpected<Error> SqliteDatabase::failed(int code) const {
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail(ErrorCode::kInvalidConfig,
                  "the job store " + name_ + " is in use by another process; stop it or name another file",
                  "job-store");
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return fail(ErrorCode::kInvalidConfig, "the job store " + name_ + " is damaged; move it away or restore a copy",
                  "job-store");
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return fail(ErrorCode::kInvalidConfig,
                  "the job store " + name_ + " cannot be opened for writing; check the path and its rights",
                  "job-store");
    case SQLITE_CONSTRAINT:
      return fail(ErrorCode::kInvalidArgument, "another job has this idempotency key", "Idempotency-Key");
    default:
      return fail(ErrorCode::kInternal, "the job store " + name_ + " failed: " + sqlite3_errmsg(handle_.get()));
  }
}

Result<std::unique_ptr<SqliteDatabase>> SqliteDatabase::open(const std::filesystem::path& path) {
  const std::string name = path.empty() ? ":memory:" : path.string();
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(name.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(std::unique_ptr<sqlite3, Close>(handle), name));
  if (code != SQLITE_OK) return database->failed(code);
  // Exclusive: the lock is taken by the first write below and kept.
  TRY(database->execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  TRY(database->execute("BEGIN IMMEDIATE; COMMIT;"));
  const int64_t version = TRY(database->integer("PRAGMA user_version"));
  if (version > kSchemaVersion)
    return fail(ErrorCode::kInvalidConfig, "the job store " + name + " was made by a newer version of this program",
                "job-store");
  if (version == 0) TRY(database->create_schema());
  return database;
}

Result<void> SqliteDatabase::create_schema() {
  const int64_t tables = TRY(integer("SELECT count(*) FROM sqlite_master"));
  if (tables > 0) return fail(ErrorCode::kInvalidConfig, name_ + " is a SQLite file, but no job store", "job-store");
  TRY(begin());
  TRY(execute(kSchema));
  return commit();
}

Result<void> SqliteDatabase::execute(const char* sql) {
  const int code = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return failed(code);
  return {};
}

Result<SqliteDatabase::Statement> SqliteDatabase::prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(handle_.get(), sql, -1, &statement, nullptr);
  if (code != SQLITE_OK) return failed(code);
  return Statement(statement);
}

Result<int64_t> SqliteDatabase::integer(const char* sql) {
  const Statement statement = TRY(prepare(sql));
  const int code = sqlite3_step(statement.get());
  if (code != SQLITE_ROW) return failed(code);
  return sqlite3_column_int64(statement.get(), 0);
}

Result<void> SqliteDatabase::begin() {
  return execute("BEGIN IMMEDIATE");
}
Result<void> SqliteDatabase::commit() {
  return execute("COMMIT");
}
void SqliteDatabase::roll_back() {
  sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<JobStore::Loaded> SqliteDatabase::load() {
  const Statement check = TRY(prepare("PRAGMA quick_check(1)"));
  if (sqlite3_step(check.get()) != SQLITE_ROW || text(check.get(), 0) != "ok") return failed(SQLITE_CORRUPT);
  JobStore::Loaded loaded;
  TRY(execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'"));
  loaded.epoch = static_cast<uint64_t>(TRY(integer("SELECT value FROM meta WHERE key = 'epoch'")));
  loaded.unfinished = TRY(rows(TRY(prepare(select("WHERE status < 2 ORDER BY sequence").c_str()))));
  return loaded;
}

Result<void> SqliteDatabase::put(const JobRow& row) {
  const Statement statement = TRY(prepare(
      "INSERT INTO jobs (id, idempotency_key, status, request_json, result_json, created_unix_ms, ended_unix_ms) "
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET idempotency_key = ?2, status = ?3, "
      "request_json = ?4, result_json = ?5, created_unix_ms = ?6, ended_unix_ms = ?7"));
  bind(statement.get(), 1, row.id);
  bind(statement.get(), 2, row.idempotency_key);
  sqlite3_bind_int(statement.get(), 3, static_cast<int>(row.status));
  bind(statement.get(), 4, row.request_json);
  bind(statement.get(), 5, row.result_json);
  sqlite3_bind_int64(statement.get(), 6, row.created_unix_ms);
  sqlite3_bind_int64(statement.get(), 7, row.ended_unix_ms);
  const int code = sqlite3_step(statement.get());
  if (code != SQLITE_DONE) return failed(code);
  if (++puts_ % kPruneEvery == 0) {
    const Statement prune =
        TRY(prepare("DELETE FROM jobs WHERE status >= 2 AND sequence <= (SELECT max(sequence) FROM jobs) - ?1"));
    sqlite3_bind_int64(prune.get(), 1, limits::kJobsKeptMax);
    if (const int pruned = sqlite3_step(prune.get()); pruned != SQLITE_DONE) return failed(pruned);
  }
  return {};
}

Result<std::vector<JobRow>> SqliteDatabase::rows(Statement statement) {
  std::vector<JobRow> rows;
  for (;;) {
    const int code = sqlite3_step(statement.get());
    if (code == SQLITE_DONE) return rows;
    if (code != SQLITE_ROW) return failed(code);
    rows.push_back(row_of(statement.get()));
  }
}

Result<std::shared_ptr<const JobRow>> SqliteDatabase::find(const std::string& id) {
  Statement statement = TRY(prepare(select("WHERE id = ?1").c_str()));
  bind(statement.get(), 1, id);
  std::vector<JobRow> found = TRY(rows(std::move(statement)));
  return found.empty() ? nullptr : std::make_shared<const JobRow>(std::move(found.front()));
}

Result<std::shared_ptr<const JobRow>> SqliteDatabase::find_by_key(const std::string& key) {
  if (key.empty()) return nullptr;
  Statement statement = TRY(prepare(select("WHERE idempotency_key = ?1 AND idempotency_key <> ''").c_str()));
  bind(statement.get(), 1, key);
  std::vector<JobRow> found = TRY(rows(std::move(statement)));
  return found.empty() ? nullptr : std::make_shared<const JobRow>(std::move(found.front()));
}

Result<std::vector<JobRow>> SqliteDatabase::list(int32_t limit) {
  Statement statement = TRY(prepare(select("ORDER BY sequence DESC LIMIT ?1").c_str()));
  sqlite3_bind_int(statement.get(), 1, limit);
  return rows(std::move(statement));
}

}  // namespace runahead
