#include "sim_job_store.h"

#include <algorithm>

#include "sim_clock.h"

namespace runahead::test {

asio::awaitable<void> SimJobStore::pass_time(Duration mean) {
  co_await SimClock(process_).sleep_until(process_.now() + world_.rng.exponential(mean));
}

Result<JobStore::Loaded> SimJobStore::load() {
  Loaded loaded{.epoch = ++disk_.epoch};
  for (const auto& [id, row] : disk_.rows)
    if (!has_ended(row.head.status)) loaded.unfinished.push_back(row.head);
  return loaded;
}

Task<void> SimJobStore::commit(std::function<void(SimDisk&)> change) {
  enum class Outcome { kPending, kDurable, kFailed };
  auto outcome = std::make_shared<Outcome>(Outcome::kPending);
  // One writer, first come first served; the write happens in the timer, so that a pause cannot reorder two of them.
  writer_free_ = std::max(writer_free_, process_.now()) + world_.rng.exponential(weather_.write_mean);
  const bool fails = world_.rng.chance(weather_.error_probability);
  process_.at(writer_free_, [this, outcome, fails, change = std::move(change)]() mutable {
    *outcome = Outcome::kFailed;
    if (fails || !process_.reachable()) return;
    *outcome = Outcome::kDurable;
    change(disk_);
  });
  // Durable a little before anybody is told: a crash in between must not double the job.
  co_await SimClock(process_).sleep_until(writer_free_ + world_.rng.exponential(weather_.write_mean / 2));
  if (*outcome != Outcome::kDurable) co_return fail(ErrorCode::kUnavailable, "the job store cannot write");
  co_return Result<void>{};
}

Task<void> SimJobStore::accept(JobHead head, std::shared_ptr<const StoredRequest> request) {
  return commit([head = std::move(head), request = std::move(request)](SimDisk& disk) {
    disk.rows[head.id] = {head, request, nullptr};
  });
}

Task<void> SimJobStore::end(JobHead head, std::shared_ptr<const StoredResult> result) {
  return commit([head = std::move(head), result = std::move(result)](SimDisk& disk) {
    SimDisk::Row& row = disk.rows[head.id];
    row.head = head;
    row.result = result;
  });
}

Task<void> SimJobStore::keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                             std::shared_ptr<const StoredResult> result) {
  return commit([head = std::move(ended), request = std::move(request), result = std::move(result)](SimDisk& disk) {
    disk.rows[head.id] = {head, request, result};
  });
}

Task<void> SimJobStore::remove(std::string id) {
  return commit([id = std::move(id)](SimDisk& disk) { disk.rows.erase(id); });
}

Task<std::shared_ptr<const JobRecord>> SimJobStore::find(std::string id) {
  co_await pass_time(weather_.write_mean / 4);
  const auto row = disk_.rows.find(id);
  if (row == disk_.rows.end()) co_return nullptr;
  auto record = std::make_shared<JobRecord>();
  record->head = row->second.head;
  if (row->second.request) record->client_json = row->second.request->client_json;
  record->result = row->second.result;
  co_return record;
}

Task<std::shared_ptr<const StoredRequest>> SimJobStore::request(std::string id) {
  co_await pass_time(weather_.write_mean / 4);
  const auto row = disk_.rows.find(id);
  co_return row == disk_.rows.end() ? nullptr : row->second.request;
}

Task<std::shared_ptr<const JobHead>> SimJobStore::find_by_key(std::string owner, std::string idempotency_key) {
  co_await pass_time(weather_.write_mean / 4);
  for (const auto& [id, row] : disk_.rows)
    if (row.head.owner == owner && row.head.idempotency_key == idempotency_key)
      co_return std::make_shared<const JobHead>(row.head);
  co_return std::shared_ptr<const JobHead>();
}

Task<std::vector<JobHead>> SimJobStore::list(JobQuery query) {
  co_await pass_time(weather_.write_mean / 4);
  std::vector<JobHead> heads;
  for (const auto& [id, row] : disk_.rows) heads.push_back(row.head);
  std::ranges::stable_sort(heads,
                           [](const JobHead& a, const JobHead& b) { return a.created_unix_ms > b.created_unix_ms; });
  if (heads.size() > static_cast<size_t>(query.limit)) heads.resize(static_cast<size_t>(query.limit));
  co_return heads;
}

}  // namespace runahead::test
