#include "actors/coordinator/worker_prefixes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/limits.h"
#include "base/sha256.h"

namespace runahead {

// A key says all that is before it, so two that are equal at one place are equal before it.
int32_t common_columns(std::span<const PageKey> left, std::span<const PageKey> right, int32_t most) {
  size_t equal = 0, unequal = std::min({left.size(), right.size(), static_cast<size_t>(std::max(most, 0))}) + 1;
  while (unequal - equal > 1) {
    const size_t middle = (equal + unequal) / 2;
    (left[middle - 1] == right[middle - 1] ? equal : unequal) = middle;
  }
  return static_cast<int32_t>(equal);
}

std::vector<PageKey> page_keys(std::string_view salt, std::span<const TokenId> tokens) {
  std::vector<PageKey> keys;
  extend_page_keys(keys, salt, tokens);
  return keys;
}

void extend_page_keys(std::vector<PageKey>& keys, std::string_view salt, std::span<const TokenId> tokens) {
  constexpr size_t kPageBytes = sizeof(TokenId) * kPageTokens;
  const auto key_of = [](std::span<const std::byte> bytes) {
    PageKey key;
    std::memcpy(key.data(), sha256(bytes).data(), sizeof key);
    return key;
  };
  PageKey before = keys.empty() ? key_of(std::as_bytes(std::span(salt))) : keys.back();
  for (size_t begin = keys.size() * kPageTokens; begin + kPageTokens <= tokens.size(); begin += kPageTokens) {
    std::array<std::byte, sizeof(PageKey) + kPageBytes> link;
    std::memcpy(link.data(), before.data(), sizeof before);
    std::memcpy(&link[sizeof before], &tokens[begin], kPageBytes);
    before = keys.emplace_back(key_of(link));
  }
}

WorkerPrefixes::Hit WorkerPrefixes::find(std::span<const PageKey> keys, int32_t columns_max) const {
  Hit best;
  uint64_t used = 0;
  for (const auto& [id, kept] : kept_) {
    const int32_t columns = common_columns(keys, kept.keys, columns_max);
    if (columns == 0 || columns < kept.least || std::pair(columns, kept.used) <= std::pair(best.columns, used)) continue;
    best = {id, columns};
    used = kept.used;
  }
  return best;
}

int32_t WorkerPrefixes::least_of(const Hit& hit) const {
  const auto found = kept_.find(hit.prefix);
  return found == kept_.end() ? 0 : found->second.least;
}

void WorkerPrefixes::begin(AttemptId attempt, Claim claim) {
  Running running{.claim = std::move(claim)};
  if (const auto found = kept_.find(running.claim.hit.prefix); found != kept_.end()) {
    found->second.used = ++clock_;
    running.columns.assign(found->second.columns.begin(), found->second.columns.begin() + running.claim.hit.columns);
    for (const Column column : running.columns)
      if (++uses_[column].attempts == 1) ++in_use_;
  }
  running_.emplace(attempt, std::move(running));
}

void WorkerPrefixes::set_keys(AttemptId attempt, std::vector<PageKey> keys) {
  if (const auto found = running_.find(attempt); found != running_.end()) found->second.claim.keys = std::move(keys);
}

void WorkerPrefixes::end(AttemptId attempt, int32_t kept) {
  const auto found = running_.find(attempt);
  if (found == running_.end()) return;
  Running running = std::move(found->second);
  running_.erase(found);
  const std::vector<Column> read = running.columns;
  if (kept > 0 && running.claim.keep != 0) {
    if (std::cmp_less(running.claim.keys.size(), kept)) {
      dropped_.push_back(running.claim.keep);  // nobody can find it
    } else {
      running.claim.keys.resize(static_cast<size_t>(kept));
      running.columns.resize(std::min(running.columns.size(), static_cast<size_t>(kept)));
      add(std::move(running));
    }
  }
  for (const Column column : read) {
    if (--uses_[column].attempts == 0) --in_use_;
    forget_unused(column);
  }
}

void WorkerPrefixes::add(Running running) {
  const std::vector<PageKey>& keys = running.claim.keys;
  if (find(keys, static_cast<int32_t>(keys.size())).columns == std::ssize(keys)) {
    dropped_.push_back(running.claim.keep);  // another attempt has made the same meanwhile
    return;
  }
  // What is only the beginning of this one is worth nothing any more.
  std::vector<uint64_t> beginnings;
  for (const auto& [id, kept] : kept_)
    if (kept.keys.size() <= keys.size() && kept.keys.back() == keys[kept.keys.size() - 1] &&
        kept.least >= running.claim.least)
      beginnings.push_back(id);
  Kept kept{.keys = std::move(running.claim.keys),
            .columns = std::move(running.columns),
            .least = running.claim.least,
            .used = ++clock_};
  while (kept.columns.size() < kept.keys.size()) kept.columns.push_back(++last_column_);
  for (const Column column : kept.columns) ++uses_[column].prefixes;
  kept_.emplace(running.claim.keep, std::move(kept));
  for (const uint64_t id : beginnings) drop(id);
  while (kept_.size() > limits::kKeptPrefixesMax) drop_oldest();
}

bool WorkerPrefixes::drop_oldest() {
  const auto oldest = std::ranges::min_element(kept_, {}, [](const auto& entry) { return entry.second.used; });
  if (oldest == kept_.end()) return false;
  drop(oldest->first);
  return true;
}

void WorkerPrefixes::forget(uint64_t prefix) {
  if (kept_.contains(prefix)) drop(prefix);
}

void WorkerPrefixes::drop(uint64_t prefix) {
  const Kept kept = std::move(kept_.at(prefix));
  kept_.erase(prefix);
  dropped_.push_back(prefix);
  for (const Column column : kept.columns) {
    --uses_[column].prefixes;
    forget_unused(column);
  }
}

void WorkerPrefixes::forget_unused(Column column) {
  const auto found = uses_.find(column);
  if (found != uses_.end() && found->second.prefixes == 0 && found->second.attempts == 0) uses_.erase(found);
}

}  // namespace runahead
