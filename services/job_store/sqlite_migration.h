// What a job store of version 1 becomes: one table with everything in it, no owners, no digests, no checks.
#pragma once

#include "base/result.h"

namespace runahead {

class SqliteDatabase;

// In the transaction of its caller: moves jobs_1 and meta_1 into the tables of today, and drops them.
Result<void> migrate_version_1(SqliteDatabase& database);

}  // namespace runahead
