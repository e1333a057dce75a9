#include "services/job_store/job_recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <set>

#include "base/cache_file.h"
#include "base/limits.h"
#include "base/wall_clock.h"

namespace runahead {
namespace {

constexpr const char* kLost = "this job was accepted, but the store was damaged and has lost it; submit it again";

// What becomes of one job.
struct Finding {
  enum class Fate { kGood, kRunsAgain, kRepaired, kLost } fate = Fate::kGood;
  JobHead head;  // as it is to be
  int64_t sequence = 0;
  uint32_t check = 0;  // of the row that was found
};

JobHead lost_head(JobHead head) {
  head.idempotency_key.clear();  // the client's next try is a new job
  head.status = JobStatus::kFailed;
  head.completion_tokens = 0;
  head.error = {ErrorCode::kCorrupt, kLost, ""};
  return head;
}

Finding lost(const LedgerEntry& entry) {
  const JobHead known{.id = entry.id, .owner = entry.owner, .created_unix_ms = entry.created_unix_ms};
  return {Finding::Fate::kLost, lost_head(known), entry.sequence, 0};
}

// The row is older than the ledger: the store has lost how the job ended.
Finding end_lost(const StoredRow& row, JobStatus ended_as) {
  Finding finding{Finding::Fate::kRepaired, row.head, row.sequence, row.check};
  finding.head.status = ended_as;
  if (ended_as == JobStatus::kFailed)
    finding.head.error = {ErrorCode::kCorrupt, "the store was damaged and has lost why this job failed", ""};
  if (ended_as == JobStatus::kSucceeded) {
    finding.fate = Finding::Fate::kRunsAgain;
    finding.head.status = JobStatus::kQueued;
  }
  return finding;
}

// Pure: a row as it was read, and what the ledger knows of it (null: nothing).
Finding judge(const StoredRow& row, const LedgerEntry* known) {
  if (!row.head_ok) return known != nullptr ? lost(*known) : Finding{Finding::Fate::kLost, {}, row.sequence, 0};
  if (!row.request_ok) return {Finding::Fate::kLost, lost_head(row.head), row.sequence, row.check};
  if (known != nullptr && has_ended(known->status) && !has_ended(row.head.status)) return end_lost(row, known->status);
  if (row.result_ok) return {Finding::Fate::kGood, row.head, row.sequence, row.check};
  Finding finding{Finding::Fate::kRepaired, row.head, row.sequence, row.check};
  if (row.head.status == JobStatus::kSucceeded) {
    finding.fate = Finding::Fate::kRunsAgain;
    finding.head.status = JobStatus::kQueued;
    finding.head.ended_unix_ms = 0;
  }
  finding.head.completion_tokens = 0;
  return finding;
}

// Under another name beside it, where it stays when another file takes its place by rename.
Result<std::filesystem::path> keep_damaged(const std::filesystem::path& path) {
  std::filesystem::path kept = fmt::format("{}.damaged-{}", path.string(), unix_time_ms());
  std::error_code failed;
  std::filesystem::create_hard_link(path, kept, failed);
  if (failed) std::filesystem::copy_file(path, kept, failed);
  if (failed)
    return fail(ErrorCode::kUnavailable,
                "the damaged job store cannot be kept as " + kept.string() + ": " + failed.message(), "job-store");
  return kept;
}

Result<void> take_name(const std::filesystem::path& fresh, const std::filesystem::path& path) {
  std::error_code failed;
  std::filesystem::rename(fresh, path, failed);
  if (failed)
    return fail(ErrorCode::kUnavailable,
                "the job store cannot be renamed to " + path.string() + ": " + failed.message(), "job-store");
  return sync_folder(path);
}

// An empty store, closed.
Result<std::filesystem::path> make_fresh(const std::filesystem::path& path) {
  std::filesystem::path fresh = path.string() + ".rebuilt";
  std::error_code none;
  std::filesystem::remove(fresh, none);
  std::filesystem::remove(fresh.string() + "-wal", none);
  TRY(TRY(SqliteDatabase::open(fresh))->checkpoint());
  return fresh;
}

// Of the SQLite file format (sqlite.org/fileformat2.html): the header's pages of the file and of its list of free ones.
constexpr size_t kPageBytes = 4096, kPagesAt = 28, kFreeAt = 32, kFreeBytes = 8;

// The file with the first page of an empty store, whose tables begin at the same pages. Its free pages are then in no
// list, which makes recover_jobs() write the file anew.
Result<void> replace_first_page(const std::filesystem::path& path) {
  const std::filesystem::path fresh = TRY(make_fresh(path));
  std::string page(kPageBytes, '\0');
  std::ifstream(fresh, std::ios::binary).read(page.data(), kPageBytes);
  std::error_code failed;
  const uintmax_t bytes = std::filesystem::file_size(path, failed);
  if (!failed && bytes >= std::filesystem::file_size(fresh)) {  // a shorter one has lost whole tables
    for (size_t i = 0; i < 4; ++i) page[kPagesAt + i] = static_cast<char>(bytes / kPageBytes >> (24 - 8 * i));
    page.replace(kFreeAt, kFreeBytes, kFreeBytes, '\0');
    std::filesystem::copy_file(path, fresh, std::filesystem::copy_options::overwrite_existing, failed);
    std::fstream copy(fresh, std::ios::in | std::ios::out | std::ios::binary);
    copy.write(page.data(), kPageBytes);
    copy.close();
    if (failed || !copy)
      return fail(ErrorCode::kUnavailable, "the job store cannot be copied to " + fresh.string() + "; free some room",
                  "job-store");
  }
  return take_name(fresh, path);
}

class Recovery {
 public:
  Recovery(std::unique_ptr<SqliteDatabase>& database, JobLedger& ledger, std::filesystem::path path)
      : database_(database), ledger_(ledger), path_(std::move(path)), known_(ledger.take_jobs()) {}

  Result<RecoveredJobs> run();

 private:
  Result<void> look();
  Result<void> look_at(int64_t sequence);
  void say(std::string sentence);
  void say_findings();
  Result<void> look_at_ledger();
  Result<void> mend_in_place();
  Result<void> rebuild();
  Result<void> put(SqliteDatabase& target, const Finding& finding, const StoredRow* row);
  Result<void> settle_ledger();

  std::unique_ptr<SqliteDatabase>& database_;
  JobLedger& ledger_;
  std::filesystem::path path_;
  std::map<std::string, LedgerEntry> known_;  // by id
  std::map<int64_t, Finding> findings_;  // by sequence
  std::set<std::string> found_;  // ids
  bool damaged_rows_ = false;
  int64_t unnamed_ = 0;  // damaged rows that nothing tells the id of
  std::string structure_;
  RecoveredJobs out_;
  size_t unsaid_ = 0;
};

Result<RecoveredJobs> Recovery::run() {
  structure_ = database_->structural_damage();
  TRY(look());
  TRY(look_at_ledger());
  if (!structure_.empty() || damaged_rows_) {
    TRY(rebuild());
  } else {
    TRY(mend_in_place());
  }
  say_findings();
  TRY(settle_ledger());
  for (auto& [sequence, finding] : findings_)
    if (!has_ended(finding.head.status)) out_.unfinished.push_back(std::move(finding.head));
  return std::move(out_);
}

Result<void> Recovery::look_at(int64_t sequence) {
  if (findings_.contains(sequence)) return {};
  const auto row = database_->at(sequence, SqliteDatabase::Parts::kAll);
  if (!row || !*row) return {};  // gone, or on a page that cannot be read
  const auto known = known_.find((*row)->head.id);
  const LedgerEntry* entry = known != known_.end() ? &known->second : nullptr;
  Finding finding = judge(**row, entry);
  damaged_rows_ = damaged_rows_ || !(*row)->head_ok || !(*row)->request_ok || !(*row)->result_ok;
  if (finding.head.id.empty()) {  // the ledger knows it by its place, unless it is damaged as well
    ++unnamed_;
    return {};
  }
  found_.insert(finding.head.id);
  findings_.emplace(sequence, std::move(finding));
  return {};
}

Result<void> Recovery::look() {
  for (const bool backwards : {false, true}) {
    for (const int64_t sequence : TRY(database_->sequences(backwards))) TRY(look_at(sequence));
    if (structure_.empty()) break;  // from the other end only where a page in between may be broken
  }
  for (const auto& [id, entry] : known_) TRY(look_at(entry.sequence));
  for (const auto& [id, entry] : known_) {
    if (found_.contains(id)) continue;
    if (unnamed_ > 0) --unnamed_;
    int64_t place = entry.sequence;
    while (findings_.contains(place)) ++place;  // another job has its place: a store that was restored from a copy
    Finding finding = lost(entry);
    finding.sequence = place;
    findings_.emplace(place, std::move(finding));
  }
  return {};
}

void Recovery::say(std::string sentence) {
  if (out_.damage.size() < limits::kDamageLinesMax) out_.damage.push_back(std::move(sentence));
  else ++unsaid_;
}

Result<void> Recovery::look_at_ledger() {
  if (ledger_.damaged_records() > 0) {
    const std::filesystem::path kept = TRY(keep_damaged(ledger_.path()));
    say(fmt::format("{} records of {} were damaged; it is written anew, and the damaged one is {}",
                    ledger_.damaged_records(), ledger_.path().string(), kept.string()));
  }
  if (ledger_.is_new() && !database_->was_empty())
    say(fmt::format("{} is missing, so a job that was lost before now cannot be told; it is written anew",
                    ledger_.path().string()));
  return {};
}

void Recovery::say_findings() {
  for (const auto& [sequence, finding] : findings_) {
    const std::string& id = finding.head.id;
    if (finding.fate == Finding::Fate::kLost)
      say(fmt::format("job {} is lost: its row in {} is {}; it is shown as failed", id, path_.string(),
                      finding.check != 0 || found_.contains(id) ? "damaged" : "gone"));
    if (finding.fate == Finding::Fate::kRunsAgain)
      say(fmt::format("the result of job {} is lost; it runs again and gives the same tokens", id));
    if (finding.fate == Finding::Fate::kRepaired)
      say(fmt::format("how job {} ended is lost in part; it stays as it is", id));
  }
  if (unnamed_ > 0) say(fmt::format("{} damaged rows of {} cannot be told to be a job's", unnamed_, path_.string()));
  if (unsaid_ > 0) out_.damage.push_back(fmt::format("and {} more of the kind", unsaid_));
}

Result<void> Recovery::put(SqliteDatabase& target, const Finding& finding, const StoredRow* row) {
  const bool whole = row != nullptr && row->request_ok;
  const bool keeps_result = whole && row->result_ok && has_ended(finding.head.status);
  TRY(target.insert(finding.head, whole ? row->client : "", whole ? row->request : "", keeps_result ? row->result : "",
                    finding.sequence));
  return {};
}

Result<void> Recovery::mend_in_place() {
  TRY(database_->begin());
  for (const auto& [sequence, finding] : findings_) {
    if (finding.fate == Finding::Fate::kLost) TRY(put(*database_, finding, nullptr));
    if (finding.fate == Finding::Fate::kRunsAgain || finding.fate == Finding::Fate::kRepaired)
      TRY(database_->update(finding.head, ""));
  }
  return database_->commit();
}

// The new file takes the name in one step, and the old one has another name before that.
Result<void> Recovery::rebuild() {
  const std::filesystem::path fresh_path = TRY(make_fresh(path_));
  {
    const auto fresh = TRY(SqliteDatabase::open(fresh_path));
    TRY(fresh->begin());
    for (const auto& [sequence, finding] : findings_) {
      const auto row = database_->at(sequence, SqliteDatabase::Parts::kAll);
      const bool same = row && *row && (*row)->head.id == finding.head.id;
      TRY(put(*fresh, finding, same ? row->get() : nullptr));
    }
    TRY(fresh->set_epoch(database_->epoch().value_or(0)));
    TRY(fresh->commit());
    TRY(fresh->checkpoint());
  }
  (void)database_->checkpoint();  // what cannot go into the damaged file stays lost
  database_.reset();
  const std::filesystem::path kept = TRY(keep_damaged(path_));
  std::error_code none;
  std::filesystem::remove(path_.string() + "-wal", none);
  TRY(take_name(fresh_path, path_));
  say(fmt::format(
      "the job store {} was damaged ({}); what could be read goes on in a new file, and the damaged one is {}",
      path_.string(), structure_.empty() ? "rows do not fit their checks" : structure_, kept.string()));
  database_ = TRY(SqliteDatabase::open(path_));
  return {};
}

// The ledger says what the store says, in as few records as that takes, if it does not yet.
Result<void> Recovery::settle_ledger() {
  std::vector<LedgerEntry> entries, missing;
  for (const auto& [sequence, finding] : findings_) {
    const auto row = TRY(database_->at(sequence, SqliteDatabase::Parts::kHead));
    if (!row) return fail(ErrorCode::kInternal, "the job store lost a row while it was mended");
    const JobHead& head = row->head;
    entries.push_back({row->sequence, head.id, head.owner, head.status, head.created_unix_ms, row->check});
    const auto known = known_.find(head.id);
    if (known == known_.end() || known->second.check != row->check) missing.push_back(entries.back());
  }
  const bool bloated = ledger_.records() > 4 * entries.size() + limits::kLedgerSlack;
  if (ledger_.damaged_records() > 0 || ledger_.is_new() || bloated) return ledger_.rewrite(entries, ledger_.epoch());
  return missing.empty() ? Result<void>{} : ledger_.append(missing);
}

}  // namespace

Result<std::unique_ptr<SqliteDatabase>> mend_start(const std::filesystem::path& path,
                                                   std::vector<std::string>& damage) {
  const std::filesystem::path kept = TRY(keep_damaged(path));
  damage.push_back(
      fmt::format("the beginning of the job store {} was damaged or cut, and is made anew; the damaged file is {}",
                  path.string(), kept.string()));
  TRY(replace_first_page(path));
  auto opened = SqliteDatabase::open(path);
  if (opened || opened.error().code != ErrorCode::kCorrupt) return opened;
  std::error_code none;
  std::filesystem::remove(path.string() + "-wal", none);
  TRY(take_name(TRY(make_fresh(path)), path));
  return SqliteDatabase::open(path);
}

Result<RecoveredJobs> recover_jobs(std::unique_ptr<SqliteDatabase>& database, JobLedger& ledger,
                                   const std::filesystem::path& path) {
  return Recovery(database, ledger, path).run();
}

}  // namespace runahead
