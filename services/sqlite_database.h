// SqliteDatabase: the statements of the job store over one connection. One thread at a time. Internal to
// SqliteJobStore.
#pragma once

#include <sqlite3.h>

#include <filesystem>
#include <memory>

#include "actors/job_store.h"

namespace runahead {

class SqliteDatabase {
 public:
  static Result<std::unique_ptr<SqliteDatabase>> open(const std::filesystem::path& path);

  Result<void> begin();
  Result<void> commit();
  void roll_back();

  Result<JobStore::Loaded> load();
  Result<void> put(const JobRow& row);
  Result<std::shared_ptr<const JobRow>> find(const std::string& id);
  Result<std::shared_ptr<const JobRow>> find_by_key(const std::string& key);
  Result<std::vector<JobRow>> list(int32_t limit);

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
  Result<void> create_schema();
  Result<std::vector<JobRow>> rows(Statement statement);

  std::unique_ptr<sqlite3, Close> handle_;
  std::string name_;  // of the file, for errors
  int64_t puts_ = 0;
};

}  // namespace runahead
