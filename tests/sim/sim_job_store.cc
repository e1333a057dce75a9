#include "sim_job_store.h"

#include <algorithm>

#include "sim_clock.h"

namespace runahead::sim {

asio::awaitable<void> SimJobStore::pass_time(Duration mean) {
  co_await SimClock(process_).sleep_until(process_.now() + world_.rng.exponential(mean));
}

Result<JobStore::Loaded> SimJobStore::load() {
  Loaded loaded{.epoch = ++disk_.epoch};
  for (const auto& [id, row] : disk_.rows)
    if (row.status == JobStatus::kQueued || row.status == JobStatus::kRunning) loaded.unfinished.push_back(row);
  return loaded;
}

Task<void> SimJobStore::commit(JobRow row) {
  enum class Outcome { kPending, kDurable, kFailed };
  auto outcome = std::make_shared<Outcome>(Outcome::kPending);
  // One writer, first come first served; the write happens in the timer, so that a pause cannot reorder two of them.
  writer_free_ = std::max(writer_free_, process_.now()) + world_.rng.exponential(weather_.write_mean);
  const bool fails = world_.rng.chance(weather_.error_probability);
  process_.at(writer_free_, [this, outcome, fails, row = std::move(row)]() mutable {
    *outcome = Outcome::kFailed;
    if (fails || !process_.reachable()) return;
    *outcome = Outcome::kDurable;
    disk_.rows[row.id] = std::move(row);
  });
  // Durable a little before anybody is told: a crash in between must not double the job.
  co_await SimClock(process_).sleep_until(writer_free_ + world_.rng.exponential(weather_.write_mean / 2));
  if (*outcome != Outcome::kDurable) co_return fail(ErrorCode::kUnavailable, "the job store cannot write");
  co_return Result<void>{};
}

Task<std::shared_ptr<const JobRow>> SimJobStore::find(std::string id) {
  co_await pass_time(weather_.write_mean / 4);
  const auto row = disk_.rows.find(id);
  co_return row == disk_.rows.end() ? nullptr : std::make_shared<const JobRow>(row->second);
}

Task<std::shared_ptr<const JobRow>> SimJobStore::find_by_key(std::string idempotency_key) {
  co_await pass_time(weather_.write_mean / 4);
  for (const auto& [id, row] : disk_.rows)
    if (row.idempotency_key == idempotency_key) co_return std::make_shared<const JobRow>(row);
  co_return std::shared_ptr<const JobRow>();
}

Task<std::vector<JobRow>> SimJobStore::list(int32_t limit) {
  co_await pass_time(weather_.write_mean / 4);
  std::vector<JobRow> rows;
  for (const auto& [id, row] : disk_.rows) rows.push_back(row);
  std::ranges::stable_sort(rows,
                           [](const JobRow& a, const JobRow& b) { return a.created_unix_ms > b.created_unix_ms; });
  if (rows.size() > static_cast<size_t>(limit)) rows.resize(static_cast<size_t>(limit));
  co_return rows;
}

}  // namespace runahead::sim
