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
    if (columns == 0 || columns < kept.least || std::pair(columns, kept.used) <= std::pair(best.columns, used))
      continue;
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
    for (const Column column : running.columns) read(column);
  }
  running_.emplace(attempt, std::move(running));
}

void WorkerPrefixes::set_keys(AttemptId attempt, std::vector<PageKey> keys) {
  if (const auto found = running_.find(attempt); found != running_.end()) found->second.claim.keys = std::move(keys);
}

void WorkerPrefixes::read(Column column) {
  Uses& uses = uses_.at(column);
  if (++uses.attempts == 1) in_use_ += uses.pages;
}

int64_t WorkerPrefixes::pages_idle(Hit hit) const {
  const auto found = kept_.find(hit.prefix);
  if (found == kept_.end()) return 0;
  int64_t idle = 0;
  for (const Column column : std::span(found->second.columns).first(static_cast<size_t>(hit.columns)))
    if (const Uses& uses = uses_.at(column); uses.attempts == 0) idle += uses.pages;
  return idle;
}

int64_t WorkerPrefixes::keep_prompt(AttemptId attempt, int32_t kept) {
  const auto found = running_.find(attempt);
  if (found == running_.end() || kept <= 0) return 0;
  Running& running = found->second;
  const uint64_t number = std::exchange(running.claim.keep_prompt, 0);
  std::vector<PageKey> keys = std::exchange(running.claim.prompt_keys, {});
  if (number == 0) return 0;
  if (std::cmp_not_equal(keys.size(), kept)) {
    dropped_.push_back(number);  // not what it was told
    return 0;
  }
  add(number, std::move(keys), running.columns, running.claim);
  const auto added = kept_.find(number);
  if (added == kept_.end()) return 0;
  const auto made = std::span(added->second.columns).subspan(running.columns.size());
  const int64_t before = in_use_;
  for (const Column column : made) read(column);
  running.columns.insert(running.columns.end(), made.begin(), made.end());
  return in_use_ - before;
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
      if (running.claim.lease.has_turned(kept)) running.claim.least = kept;
      std::vector<PageKey> keys = std::exchange(running.claim.keys, {});
      keys.resize(static_cast<size_t>(kept));
      running.columns.resize(std::min(running.columns.size(), static_cast<size_t>(kept)));
      add(running.claim.keep, std::move(keys), std::move(running.columns), running.claim);
    }
  }
  for (const Column column : read) {
    Uses& uses = uses_.at(column);
    if (--uses.attempts == 0) in_use_ -= uses.pages;
    forget_unused(column);
  }
}

// Columns behind those that it is given are new: the claim's lease has made them.
void WorkerPrefixes::add(uint64_t number, std::vector<PageKey> keys, std::vector<Column> columns, const Claim& claim) {
  if (find(keys, static_cast<int32_t>(keys.size())).columns == std::ssize(keys)) {
    dropped_.push_back(number);  // another attempt has made the same meanwhile
    return;
  }
  // What is only the beginning of this one is worth nothing any more.
  std::vector<uint64_t> beginnings;
  for (const auto& [id, kept] : kept_)
    if (kept.keys.size() <= keys.size() && kept.keys.back() == keys[kept.keys.size() - 1] && kept.least >= claim.least)
      beginnings.push_back(id);
  Kept kept{.keys = std::move(keys), .columns = std::move(columns), .least = claim.least, .used = ++clock_};
  const auto all = static_cast<int32_t>(kept.keys.size());
  for (auto at = static_cast<int32_t>(kept.columns.size()); at < all; ++at) {
    kept.columns.push_back(++last_column_);
    const int32_t pages = claim.lease.layers_with(at, all);
    uses_[last_column_].pages = pages;
    pages_ += pages;
  }
  for (const Column column : kept.columns) ++uses_[column].prefixes;
  kept_.emplace(number, std::move(kept));
  for (const uint64_t id : beginnings) drop(id);
  while (kept_.size() > limits::kKeptPrefixesMax) drop(oldest(/*even_if_read=*/true));
}

// 0: none. Attempts read from the first column on: who reads the last one reads all.
uint64_t WorkerPrefixes::oldest(bool even_if_read) const {
  uint64_t oldest = 0, used = clock_ + 1;
  for (const auto& [id, kept] : kept_) {
    if (kept.used >= used || (!even_if_read && uses_.at(kept.columns.back()).attempts > 0)) continue;
    oldest = id;
    used = kept.used;
  }
  return oldest;
}

bool WorkerPrefixes::drop_oldest() {
  const uint64_t prefix = oldest(/*even_if_read=*/false);
  if (prefix == 0) return false;
  drop(prefix);
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
  if (found == uses_.end() || found->second.prefixes > 0 || found->second.attempts > 0) return;
  pages_ -= found->second.pages;
  uses_.erase(found);
}

}  // namespace runahead
