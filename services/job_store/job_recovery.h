// What a job store does when it is opened: every row is read and held against the ledger, what is lost is said, and what
// is left runs. A job that is lost is shown as failed, so that whoever asks for it is told.
//   damaged start    SQLite opens no file whose first page is damaged, and that page is the same in every store: a copy of
//                    the file gets a new one.
//   damaged file     what can be read goes into a new file, which takes its name; the damaged one is kept beside it.
//   lost end         a succeeded job runs again, and gives the same tokens; a cancelled one stays cancelled.
// Blocking; reads the whole store once.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "services/job_store/job_ledger.h"
#include "services/job_store/sqlite_database.h"

namespace runahead {

struct RecoveredJobs {
  std::vector<JobHead> unfinished;  // in the order of submission
  std::vector<std::string> damage;  // a sentence each
};

// For a job store that SqliteDatabase::open() finds kCorrupt: the store at `path` with its first page made anew, and a
// sentence for `damage`; an empty one if that does not help either, so that what the ledger knows is said to be lost.
Result<std::unique_ptr<SqliteDatabase>> mend_start(const std::filesystem::path& path, std::vector<std::string>& damage);

// `database` may be another one afterwards. Store and ledger agree when it returns.
Result<RecoveredJobs> recover_jobs(std::unique_ptr<SqliteDatabase>& database, JobLedger& ledger,
                                   const std::filesystem::path& path);

}  // namespace runahead
