#include "model/kv_pages.h"

#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"

namespace runahead {

KvLease::KvLease(KvPool& pool, int32_t num_layers, int32_t layers_at_once, int32_t num_pages,
                 std::vector<uint32_t> slots)
    : pool_(pool),
      num_layers_(num_layers),
      layers_at_once_(layers_at_once),
      num_pages_(num_pages),
      slots_(std::move(slots)),
      on_device_(has_twins() ? static_cast<size_t>(num_layers) * static_cast<size_t>(num_pages) : 0) {}

KvLease::~KvLease() {
  const auto count = static_cast<int64_t>(slots_.size());
  (quarantined_ ? pool_.usage_.quarantined : pool_.usage_.leased) -= count;
  pool_.usage_.free += count;
  pool_.free_slots_.insert(pool_.free_slots_.end(), slots_.begin(), slots_.end());
}

size_t KvLease::slot(int32_t layer, int32_t page) const {
  RUNAHEAD_CHECK(layer >= 0 && layer < num_layers_ && page >= 0 && page < num_pages_, "page outside its lease");
  const size_t place = static_cast<size_t>(layer % layers_at_once_);
  return slots_[place * static_cast<size_t>(num_pages_) + static_cast<size_t>(page)];
}

std::span<std::byte> KvLease::page(int32_t layer, int32_t page) const {
  return {pool_.pages_ + slot(layer, page) * pool_.page_bytes_, pool_.page_bytes_};
}

bool KvLease::is_on_host() const { return pool_.buffer_.size() > 0; }

std::byte* KvLease::device_page(int32_t layer, int32_t page) const {
  if (!has_twins()) return this->page(layer, page).data();
  return pool_.device_->data() + slot(layer, page) * pool_.device_->page_bytes();
}

bool KvLease::has_twins() const { return pool_.device_ != nullptr && is_on_host(); }

bool KvLease::needs_upload(int32_t layer, int32_t page) const {
  return has_twins() && !on_device_[static_cast<size_t>(layer * num_pages_ + page)];
}

void KvLease::mark_on_device(int32_t layer, int32_t page) {
  if (has_twins()) on_device_[static_cast<size_t>(layer * num_pages_ + page)] = true;
}

uint32_t KvLease::checksum(int32_t layer, int32_t page) const {
  RUNAHEAD_CHECK(is_on_host(), "the device's pages are its own to look at");
  return crc32c(this->page(layer, page));
}

void KvLease::clear(int32_t layer, int32_t page) {
  RUNAHEAD_CHECK(is_on_host(), "the device's pages are its own to write");
  const std::span<std::byte> bytes = this->page(layer, page);
  std::memset(bytes.data(), 0, bytes.size());
}

void KvLease::mark_quarantined() {
  if (quarantined_) return;
  quarantined_ = true;
  pool_.usage_.leased -= static_cast<int64_t>(slots_.size());
  pool_.usage_.quarantined += static_cast<int64_t>(slots_.size());
}

KvPool::KvPool(size_t page_bytes, int64_t num_pages, std::unique_ptr<DevicePages> device)
    : page_bytes_((page_bytes + 63) / 64 * 64),
      buffer_(page_bytes_ * static_cast<size_t>(num_pages)),
      device_(std::move(device)),
      pages_(buffer_.data()) {
  if (device_) device_->pair_with({buffer_.data(), buffer_.size()});
  free_all(num_pages);
}

KvPool::KvPool(int64_t num_pages, std::unique_ptr<DevicePages> device)
    : page_bytes_(device->page_bytes()), device_(std::move(device)), pages_(device_->data()) {
  RUNAHEAD_CHECK(page_bytes_ % 64 == 0 && device_->can_travel(), "pages of a device that peers can read");
  free_all(num_pages);
}

void KvPool::free_all(int64_t num_pages) {
  RUNAHEAD_CHECK(num_pages > 0 && num_pages < INT32_MAX, "a pool has pages");
  usage_ = {.total = num_pages, .free = num_pages};
  free_slots_.reserve(static_cast<size_t>(num_pages));
  for (int64_t slot = num_pages; slot-- > 0;) free_slots_.push_back(static_cast<uint32_t>(slot));
}

KvPool::~KvPool() { RUNAHEAD_CHECK(usage_.free == usage_.total, "a lease outlives its pool"); }

Result<std::shared_ptr<KvLease>> KvPool::lease(int32_t num_layers, int32_t tokens, int32_t layers_at_once) {
  RUNAHEAD_CHECK(layers_at_once > 0 && layers_at_once <= num_layers && tokens > 0, "a lease has pages");
  const int32_t pages = pages_for(tokens);
  const int64_t count = static_cast<int64_t>(layers_at_once) * pages;
  if (count > usage_.free)
    return fail(ErrorCode::kOverloaded, "the KV cache is full: " + std::to_string(count) + " pages asked for, " +
                                            std::to_string(usage_.free) + " of " + std::to_string(usage_.total) +
                                            " free");
  std::vector<uint32_t> slots(free_slots_.end() - count, free_slots_.end());
  free_slots_.resize(free_slots_.size() - static_cast<size_t>(count));
  usage_.free -= count;
  usage_.leased += count;
  return std::shared_ptr<KvLease>(new KvLease(*this, num_layers, layers_at_once, pages, std::move(slots)));
}

}  // namespace runahead
