#include "services/memory_job_store.h"

#include <algorithm>

namespace runahead {
namespace {

bool has_ended(const JobRow& row) { return row.status != JobStatus::kQueued && row.status != JobStatus::kRunning; }

}  // namespace

Task<void> MemoryJobStore::commit(JobRow row) {
  const std::string id = row.id;
  if (!rows_.contains(id)) order_.push_back(id);
  rows_[id] = std::make_shared<const JobRow>(std::move(row));
  if (order_.size() > kRows) {
    const auto oldest = std::find_if(order_.begin(), order_.end(), [&](const auto& known) { return has_ended(*rows_[known]); });
    if (oldest == order_.end()) co_return fail(ErrorCode::kOverloaded, "too many jobs are unfinished");
    rows_.erase(*oldest);
    order_.erase(oldest);
  }
  co_return Result<void>{};
}

Task<std::shared_ptr<const JobRow>> MemoryJobStore::find(std::string id) {
  const auto it = rows_.find(id);
  co_return it == rows_.end() ? nullptr : it->second;
}

Task<std::shared_ptr<const JobRow>> MemoryJobStore::find_by_key(std::string idempotency_key) {
  for (const auto& [id, row] : rows_)
    if (!idempotency_key.empty() && row->idempotency_key == idempotency_key) co_return row;
  co_return nullptr;
}

Task<std::vector<JobRow>> MemoryJobStore::list(int32_t limit) {
  std::vector<JobRow> rows;
  for (auto id = order_.rbegin(); id != order_.rend() && std::ssize(rows) < limit; ++id) rows.push_back(*rows_[*id]);
  co_return rows;
}

}  // namespace runahead
