#include "services/job_store/sqlite_database.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "base/crc32c.h"

namespace runahead {
namespace {

constexpr int64_t kSchemaVersion = 3;

constexpr const char* kSchema = R"sql(
  CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, check_sum INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY,  -- order of submission
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    status INTEGER NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    error_code TEXT NOT NULL,
    error_message TEXT NOT NULL,
    error_param TEXT NOT NULL,
    request_check INTEGER NOT NULL,
    result_check INTEGER NOT NULL,
    check_sum INTEGER NOT NULL);
  CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key) WHERE idempotency_key <> '';
  CREATE INDEX jobs_by_owner ON jobs (owner, sequence);
  CREATE TABLE requests (sequence INTEGER PRIMARY KEY, client TEXT NOT NULL, request BLOB NOT NULL);
  CREATE TABLE results (sequence INTEGER PRIMARY KEY, result BLOB NOT NULL);
  PRAGMA user_version = 3;
)sql";

constexpr const char* kColumns =
    "sequence, id, owner, idempotency_key, request_digest, kind, status, created_unix_ms, ended_unix_ms, "
    "prompt_tokens, "
    "completion_tokens, error_code, error_message, error_param, request_check, result_check, check_sum";
enum Column {
  kSequence,
  kId,
  kOwner,
  kKey,
  kDigest,
  kKind,
  kStatus,
  kCreated,
  kEnded,
  kPromptTokens,
  kCompletionTokens,
  kErrorCode,
  kErrorMessage,
  kErrorParam,
  kRequestCheck,
  kResultCheck,
  kCheck
};

std::string select(const char* rest) { return fmt::format("SELECT {} FROM jobs {}", kColumns, rest); }

std::string text(sqlite3_stmt* statement, int column) {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return bytes == nullptr ? "" : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
}

std::string blob(sqlite3_stmt* statement, int column) {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement, column));
  return bytes == nullptr ? "" : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
}

void bind(sqlite3_stmt* statement, int index, const std::string& value) {
  sqlite3_bind_text64(statement, index, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
}

void bind_blob(sqlite3_stmt* statement, int index, const std::string& value) {
  sqlite3_bind_blob64(statement, index, value.data(), value.size(), SQLITE_STATIC);
}

uint32_t check_of(std::string_view bytes, uint32_t seed = 0) {
  return crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())), seed);
}

// Of both: their lengths tell where one ends.
uint32_t check_of_request(const std::string& client, const std::string& request) {
  return check_of(request, check_of(client, static_cast<uint32_t>(client.size())));
}
uint32_t check_of_result(const std::string& result) { return result.empty() ? 0 : check_of(result); }
uint32_t check_of_epoch(int64_t epoch) { return check_of(fmt::format("epoch {}", epoch)); }

uint32_t check_of_head(const JobHead& head, int64_t sequence, uint32_t request_check, uint32_t result_check) {
  std::string all =
      fmt::format("{} {} {} {} {} {} {} {}", sequence, static_cast<int>(head.status), head.created_unix_ms,
                  head.ended_unix_ms, head.prompt_tokens, head.completion_tokens, request_check, result_check);
  const Error none{ErrorCode::kInternal, "", ""};
  const Error& error = head.error ? *head.error : none;
  for (const std::string_view part : {std::string_view(head.id), std::string_view(head.owner),
                                      std::string_view(head.idempotency_key), std::string_view(head.request_digest),
                                      std::string_view(head.kind), head.error ? name(error.code) : std::string_view(),
                                      std::string_view(error.message), std::string_view(error.param)})
    all += fmt::format(" {}:{}", part.size(), part);
  return check_of(all);
}

ErrorCode code_of(const std::string& text) {
  for (int code = 0; code < static_cast<int>(ErrorCode::kInternal); ++code)
    if (name(static_cast<ErrorCode>(code)) == text) return static_cast<ErrorCode>(code);
  return ErrorCode::kInternal;
}

StoredRow row_of(sqlite3_stmt* statement) {
  StoredRow row;
  row.sequence = sqlite3_column_int64(statement, kSequence);
  JobHead& head = row.head;
  head.id = text(statement, kId);
  head.owner = text(statement, kOwner);
  head.idempotency_key = text(statement, kKey);
  head.request_digest = text(statement, kDigest);
  head.kind = text(statement, kKind);
  head.status = static_cast<JobStatus>(std::clamp(sqlite3_column_int(statement, kStatus), 0, 4));
  head.created_unix_ms = sqlite3_column_int64(statement, kCreated);
  head.ended_unix_ms = sqlite3_column_int64(statement, kEnded);
  head.prompt_tokens = sqlite3_column_int(statement, kPromptTokens);
  head.completion_tokens = sqlite3_column_int(statement, kCompletionTokens);
  const std::string code = text(statement, kErrorCode);
  if (!code.empty()) head.error = {code_of(code), text(statement, kErrorMessage), text(statement, kErrorParam)};
  row.check = static_cast<uint32_t>(sqlite3_column_int64(statement, kCheck));
  row.request_check = static_cast<uint32_t>(sqlite3_column_int64(statement, kRequestCheck));
  row.result_check = static_cast<uint32_t>(sqlite3_column_int64(statement, kResultCheck));
  row.head_ok = row.check == check_of_head(head, row.sequence, row.request_check, row.result_check);
  return row;
}

std::unexpected<Error> damaged_file(const std::string& name) {
  return fail(ErrorCode::kCorrupt,
              "the job store " + name + " is damaged; restore a copy, or move it away with its -wal and -ledger",
              "job-store");
}

// Its row says nothing that can be trusted.
JobHead unreadable(const JobHead& read) {
  JobHead head{.id = read.id, .owner = read.owner, .status = JobStatus::kFailed};
  head.error = {ErrorCode::kCorrupt, "this job's row in the store is damaged", ""};
  return head;
}

}  // namespace

std::unexpected<Error> SqliteDatabase::failed(int code) const {
  const auto refused = [&](const char* why) {
    return fail(ErrorCode::kInvalidConfig, "the job store " + name_ + why, "job-store");
  };
  switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_ERROR:  // our statements are right, so the file's tables are not
      return damaged_file(name_);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return refused(" is in use by another process; stop it or name another file");
    case SQLITE_READONLY:  // also for a number of its format that is none
      if (::access(name_.c_str(), W_OK) == 0) return damaged_file(name_);
      [[fallthrough]];
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return refused(" cannot be opened for writing; check the path and its rights");
    case SQLITE_FULL:
      return fail(ErrorCode::kUnavailable, "the disk of the job store " + name_ + " is full; free some room", "");
    case SQLITE_NOMEM:
      return fail(ErrorCode::kUnavailable, "there is not enough memory for the job store; try again later", "");
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
  // Exclusive: the lock is taken by the first write below and kept. A file that is none of ours is not written to.
  TRY(database->execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON;"));
  TRY(database->check_kind());
  TRY(database->execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  TRY(database->execute("BEGIN IMMEDIATE; COMMIT;"));
  TRY(database->make_tables());
  return database;
}

std::string SqliteDatabase::schema_of_a_new_one() {
  static const std::string schema = [] {
    SqliteDatabase fresh(nullptr, ":memory:");
    sqlite3* handle = nullptr;
    RUNAHEAD_CHECK(sqlite3_open(":memory:", &handle) == SQLITE_OK, "a database in memory needs nothing but memory");
    fresh.handle_.reset(handle);
    RUNAHEAD_CHECK(fresh.execute(kSchema).has_value(), "our own statements");
    return fresh.schema().value();
  }();
  return schema;
}

Result<void> SqliteDatabase::check_kind() {
  const int64_t version = TRY(integer("PRAGMA user_version"));
  const bool is_ours = TRY(schema()) == schema_of_a_new_one();
  if (sqlite3_db_readonly(handle_.get(), "main") == 1) return failed(SQLITE_READONLY);
  if (is_ours && version == kSchemaVersion) return {};
  if (is_ours || version == kSchemaVersion) return damaged_file(name_);
  if (version > kSchemaVersion)
    return fail(
        ErrorCode::kInvalidConfig,
        "the job store " + name_ + " was made by a newer version of this program; run that one, or name another file",
        "job-store");
  const bool is_empty = TRY(integer("SELECT count(*) FROM sqlite_master")) == 0;
  const bool has_jobs = TRY(integer("SELECT count(*) FROM sqlite_master WHERE name = 'jobs'")) > 0;
  if (version > 0 && has_jobs)
    return fail(
        ErrorCode::kInvalidConfig,
        "the job store " + name_ + " was made by an older version of this program; run that one, or name another file",
        "job-store");
  if (!is_empty)
    return fail(ErrorCode::kInvalidConfig, name_ + " is a SQLite file, but no job store; name another file",
                "job-store");
  return {};
}

Result<void> SqliteDatabase::make_tables() {
  was_empty_ = TRY(integer("PRAGMA user_version")) != kSchemaVersion;
  if (!was_empty_) return {};
  TRY(begin());
  TRY(execute(kSchema));
  TRY(commit());
  return checkpoint();
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

Result<void> SqliteDatabase::begin() { return execute("BEGIN IMMEDIATE"); }
Result<void> SqliteDatabase::commit() { return execute("COMMIT"); }
void SqliteDatabase::roll_back() { sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr); }
Result<LedgerEntry> SqliteDatabase::as_one(const std::function<Result<LedgerEntry>()>& work) {
  if (sqlite3_get_autocommit(handle_.get()) != 0)
    return fail(ErrorCode::kUnavailable, "the job store " + name_ + " could not keep its transaction; try again later");
  TRY(execute("SAVEPOINT one"));
  Result<LedgerEntry> done = work();
  if (!done) {
    sqlite3_exec(handle_.get(), "ROLLBACK TO one; RELEASE one", nullptr, nullptr, nullptr);
    return done;
  }
  TRY(execute("RELEASE one"));
  return done;
}
Result<void> SqliteDatabase::checkpoint() { return execute("PRAGMA wal_checkpoint(TRUNCATE)"); }

Result<std::string> SqliteDatabase::schema() {
  const Statement statement =
      TRY(prepare("SELECT group_concat(type || name || tbl_name || sql) "
                  "FROM (SELECT * FROM sqlite_master ORDER BY name)"));
  const int code = sqlite3_step(statement.get());
  if (code != SQLITE_ROW) return failed(code);
  return text(statement.get(), 0);
}

std::string SqliteDatabase::structural_damage() {
  const Result<Statement> check = prepare("PRAGMA integrity_check(1)");
  if (!check || sqlite3_step(check->get()) != SQLITE_ROW) return "it cannot be checked";
  return text(check->get(), 0) == "ok" ? "" : text(check->get(), 0);
}

Result<uint64_t> SqliteDatabase::epoch() {
  const Statement statement = TRY(prepare("SELECT value, check_sum FROM meta WHERE key = 'epoch'"));
  const int code = sqlite3_step(statement.get());
  if (code != SQLITE_ROW && code != SQLITE_DONE) return failed(code);
  const int64_t value = code == SQLITE_ROW ? sqlite3_column_int64(statement.get(), 0) : 0;
  if (code == SQLITE_DONE || sqlite3_column_int64(statement.get(), 1) != check_of_epoch(value)) return 0;
  return static_cast<uint64_t>(value);
}

Result<void> SqliteDatabase::set_epoch(uint64_t epoch) {
  const Statement statement = TRY(prepare("INSERT OR REPLACE INTO meta VALUES ('epoch', ?1, ?2)"));
  sqlite3_bind_int64(statement.get(), 1, static_cast<int64_t>(epoch));
  sqlite3_bind_int64(statement.get(), 2, check_of_epoch(static_cast<int64_t>(epoch)));
  const int code = sqlite3_step(statement.get());
  if (code != SQLITE_DONE) return failed(code);
  return {};
}

Result<void> SqliteDatabase::put_head(const JobHead& head, int64_t sequence, uint32_t check, uint32_t request_check,
                                      uint32_t result_check) {
  const Statement statement = TRY(prepare(
      fmt::format(
          "INSERT INTO jobs ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) "
          "ON CONFLICT (sequence) DO UPDATE SET status = ?7, ended_unix_ms = ?9, completion_tokens = ?11, error_code = "
          "?12, "
          "error_message = ?13, error_param = ?14, result_check = ?16, check_sum = ?17",
          kColumns)
          .c_str()));
  sqlite3_stmt* const to = statement.get();
  const Error error = head.error.value_or(Error{});
  const std::string code(head.error ? name(error.code) : "");
  const std::pair<Column, const std::string&> texts[] = {
      {kId, head.id},     {kOwner, head.owner}, {kKey, head.idempotency_key},   {kDigest, head.request_digest},
      {kKind, head.kind}, {kErrorCode, code},   {kErrorMessage, error.message}, {kErrorParam, error.param}};
  for (const auto& [column, value] : texts) bind(to, column + 1, value);
  const std::pair<Column, int64_t> numbers[] = {{kSequence, sequence},
                                                {kStatus, static_cast<int64_t>(head.status)},
                                                {kCreated, head.created_unix_ms},
                                                {kEnded, head.ended_unix_ms},
                                                {kPromptTokens, head.prompt_tokens},
                                                {kCompletionTokens, head.completion_tokens},
                                                {kRequestCheck, request_check},
                                                {kResultCheck, result_check},
                                                {kCheck, check}};
  for (const auto& [column, value] : numbers) sqlite3_bind_int64(to, column + 1, value);
  const int done = sqlite3_step(to);
  if (done != SQLITE_DONE) return failed(done);
  return {};
}

Result<LedgerEntry> SqliteDatabase::insert(const JobHead& head, const std::string& client, const std::string& request,
                                           const std::string& result, int64_t sequence) {
  if (sequence == 0) sequence = TRY(last_sequence()) + 1;
  const uint32_t request_check = check_of_request(client, request), result_check = check_of_result(result);
  const uint32_t check = check_of_head(head, sequence, request_check, result_check);
  TRY(put_head(head, sequence, check, request_check, result_check));
  const Statement parts = TRY(prepare("INSERT OR REPLACE INTO requests VALUES (?1, ?2, ?3)"));
  sqlite3_bind_int64(parts.get(), 1, sequence);
  bind(parts.get(), 2, client);
  bind_blob(parts.get(), 3, request);
  const int done = sqlite3_step(parts.get());
  if (done != SQLITE_DONE) return failed(done);
  if (!result.empty()) TRY(put_result(sequence, result));
  return LedgerEntry{sequence, head.id, head.owner, head.status, head.created_unix_ms, check};
}

Result<void> SqliteDatabase::put_result(int64_t sequence, const std::string& result) {
  const Statement statement = TRY(prepare("INSERT OR REPLACE INTO results VALUES (?1, ?2)"));
  sqlite3_bind_int64(statement.get(), 1, sequence);
  bind_blob(statement.get(), 2, result);
  const int done = sqlite3_step(statement.get());
  if (done != SQLITE_DONE) return failed(done);
  return {};
}

Result<LedgerEntry> SqliteDatabase::update(const JobHead& head, const std::string& result) {
  const auto row = TRY(find(head.id, Parts::kHead));
  if (!row || !row->head_ok)
    return fail(ErrorCode::kCorrupt, "the row of job " + head.id + " is damaged, or not in the store any more");
  const uint32_t result_check = check_of_result(result);
  const uint32_t check = check_of_head(head, row->sequence, row->request_check, result_check);
  TRY(put_head(head, row->sequence, check, row->request_check, result_check));
  if (!result.empty()) TRY(put_result(row->sequence, result));
  return LedgerEntry{row->sequence, head.id, head.owner, head.status, head.created_unix_ms, check};
}

Result<void> SqliteDatabase::read_parts(StoredRow& row) {
  const Statement statement = TRY(
      prepare("SELECT client, request, result FROM requests LEFT JOIN results USING (sequence) WHERE sequence = ?1"));
  sqlite3_bind_int64(statement.get(), 1, row.sequence);
  const int code = sqlite3_step(statement.get());
  if (code == SQLITE_DONE) return {};
  if (code != SQLITE_ROW) return failed(code);
  row.client = text(statement.get(), 0);
  row.request = blob(statement.get(), 1);
  row.result = blob(statement.get(), 2);
  row.request_ok = row.head_ok && check_of_request(row.client, row.request) == row.request_check;
  row.result_ok = row.head_ok && check_of_result(row.result) == row.result_check;
  return {};
}

Result<std::unique_ptr<StoredRow>> SqliteDatabase::one(Statement statement, Parts parts) {
  const int code = sqlite3_step(statement.get());
  if (code == SQLITE_DONE) return nullptr;
  if (code != SQLITE_ROW) return failed(code);
  auto row = std::make_unique<StoredRow>(row_of(statement.get()));
  if (parts == Parts::kAll) TRY(read_parts(*row));
  return row;
}

Result<std::unique_ptr<StoredRow>> SqliteDatabase::find(const std::string& id, Parts parts) {
  Statement statement = TRY(prepare(select("WHERE id = ?1").c_str()));
  bind(statement.get(), 1, id);
  return one(std::move(statement), parts);
}

Result<std::unique_ptr<StoredRow>> SqliteDatabase::find_by_key(const std::string& owner, const std::string& key) {
  Statement statement =
      TRY(prepare(select("WHERE owner = ?1 AND idempotency_key = ?2 AND idempotency_key <> ''").c_str()));
  bind(statement.get(), 1, owner);
  bind(statement.get(), 2, key);
  return one(std::move(statement), Parts::kHead);
}

Result<std::unique_ptr<StoredRow>> SqliteDatabase::at(int64_t sequence, Parts parts) {
  Statement statement = TRY(prepare(select("WHERE sequence = ?1").c_str()));
  sqlite3_bind_int64(statement.get(), 1, sequence);
  return one(std::move(statement), parts);
}

// Each half reads its own end of jobs_by_owner, so that the work does not grow with the table.
Result<std::vector<JobHead>> SqliteDatabase::list(const std::string& owner, int64_t before, int32_t limit) {
  const std::string half = select("WHERE owner = {} AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3");
  const Statement statement =
      TRY(prepare(fmt::format("SELECT * FROM ({}) UNION SELECT * FROM ({}) ORDER BY sequence DESC LIMIT ?3",
                              fmt::format(fmt::runtime(half), "?1"), fmt::format(fmt::runtime(half), "''"))
                      .c_str()));
  bind(statement.get(), 1, owner);
  sqlite3_bind_int64(statement.get(), 2, before);
  sqlite3_bind_int(statement.get(), 3, limit);
  std::vector<JobHead> heads;
  for (;;) {
    const int code = sqlite3_step(statement.get());
    if (code == SQLITE_DONE) return heads;
    if (code != SQLITE_ROW) return failed(code);
    StoredRow row = row_of(statement.get());
    heads.push_back(row.head_ok ? std::move(row.head) : unreadable(row.head));
  }
}

Result<std::vector<int64_t>> SqliteDatabase::sequences(bool backwards) {
  const Statement statement = TRY(prepare(backwards ? "SELECT sequence FROM jobs NOT INDEXED ORDER BY sequence DESC"
                                                    : "SELECT sequence FROM jobs NOT INDEXED ORDER BY sequence"));
  std::vector<int64_t> found;
  while (sqlite3_step(statement.get()) == SQLITE_ROW) found.push_back(sqlite3_column_int64(statement.get(), 0));
  return found;
}

Result<int64_t> SqliteDatabase::last_sequence() { return integer("SELECT coalesce(max(sequence), 0) FROM jobs"); }

// Its parts first: what stayed of them would be found beside the next job that has its place.
Result<void> SqliteDatabase::remove(const std::string& id) {
  const auto gone = as_one([&]() -> Result<LedgerEntry> {
    const std::string place = "sequence IN (SELECT sequence FROM jobs WHERE id = ?1)";
    for (const char* table : {"results", "requests", "jobs"}) {
      const Statement statement = TRY(prepare(fmt::format("DELETE FROM {} WHERE {}", table, place).c_str()));
      bind(statement.get(), 1, id);
      const int done = sqlite3_step(statement.get());
      if (done != SQLITE_DONE) return failed(done);
    }
    return LedgerEntry{};
  });
  return gone ? Result<void>{} : std::unexpected(gone.error());
}

Result<void> SqliteDatabase::prune(int64_t sequence) {
  const std::string old = fmt::format("status >= 2 AND sequence <= {}", sequence);
  for (const char* parts : {"requests", "results"})
    TRY(execute(
        fmt::format("DELETE FROM {} WHERE sequence IN (SELECT sequence FROM jobs WHERE {})", parts, old).c_str()));
  return execute(("DELETE FROM jobs WHERE " + old).c_str());
}

}  // namespace runahead
