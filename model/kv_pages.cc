#include "model/kv_pages.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"

namespace runahead {

KvLease::KvLease(KvPool& pool, int32_t num_layers, int32_t layers_at_once, int32_t num_pages, int32_t shared_pages)
    : pool_(pool),
      num_layers_(num_layers),
      layers_at_once_(layers_at_once),
      num_pages_(num_pages),
      shared_pages_(shared_pages),
      on_device_(has_twins() ? static_cast<size_t>(num_layers) * static_cast<size_t>(num_pages) : 0) {}

template <class Call>
void KvLease::for_each_slot(Call call) const {
  for (const std::vector<uint32_t>* slots : {&shared_slots_, &slots_})
    for (const uint32_t slot : *slots) call(slot);
}

KvLease::~KvLease() {
  for_each_slot([this](uint32_t slot) { pool_.give_back(slot, keeps_); });
}

size_t KvLease::slot(int32_t layer, int32_t page) const {
  RUNAHEAD_CHECK(layer >= 0 && layer < num_layers_ && page >= 0 && page < num_pages_, "page outside its lease");
  const auto at = [](int32_t row, int32_t columns, int32_t column) {
    return static_cast<size_t>(row) * static_cast<size_t>(columns) + static_cast<size_t>(column);
  };
  if (page < shared_pages_) return shared_slots_[at(layer, shared_pages_, page)];
  return slots_[at(layer % layers_at_once_, num_pages_ - shared_pages_, page - shared_pages_)];
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

// What others have too is only read.
void KvLease::mark_quarantined() {
  for_each_slot([this](uint32_t slot) {
    pool_.change(slot, [](KvPool::Slot& state) { state.quarantined |= state.leases == 1; });
  });
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
  slots_.resize(static_cast<size_t>(num_pages));
  free_slots_.reserve(static_cast<size_t>(num_pages));
  for (int64_t slot = num_pages; slot-- > 0;) free_slots_.push_back(static_cast<uint32_t>(slot));
}

KvPool::~KvPool() { RUNAHEAD_CHECK(usage_.free == usage_.total, "a lease outlives its pool"); }

int64_t& KvPool::count_of(const Slot& slot) {
  if (slot.leases == 0) return usage_.free;
  if (slot.quarantined) return usage_.quarantined;
  return slot.leases == slot.keepers ? usage_.kept : usage_.leased;
}

template <class Change>
void KvPool::change(uint32_t slot, Change change) {
  --count_of(slots_[slot]);
  change(slots_[slot]);
  ++count_of(slots_[slot]);
}

void KvPool::give_back(uint32_t slot, bool keeper) {
  change(slot, [&](Slot& state) {
    --state.leases;
    state.keepers -= keeper ? 1 : 0;
    if (state.leases == 0) state = {};
  });
  if (slots_[slot].leases == 0) free_slots_.push_back(slot);
}

Result<std::shared_ptr<KvLease>> KvPool::lease(int32_t num_layers, int32_t tokens, int32_t layers_at_once) {
  RUNAHEAD_CHECK(layers_at_once > 0 && layers_at_once <= num_layers && tokens > 0, "a lease has pages");
  std::shared_ptr<KvLease> made(new KvLease(*this, num_layers, layers_at_once, pages_for(tokens), 0));
  TRY(take_pages(*made));
  return made;
}

Result<std::shared_ptr<KvLease>> KvPool::lease_behind(const KvLease& beginning, int32_t pages, int32_t tokens,
                                                      int32_t layers_at_once) {
  RUNAHEAD_CHECK(layers_at_once > 0 && layers_at_once <= beginning.num_layers_ && pages < pages_for(tokens),
                 "a lease has pages of its own");
  std::shared_ptr<KvLease> made(new KvLease(*this, beginning.num_layers_, layers_at_once, pages_for(tokens), pages));
  TRY(take_pages(*made));
  share_pages(beginning, *made);
  return made;
}

std::shared_ptr<KvLease> KvPool::share(const KvLease& lease, int32_t pages) {
  std::shared_ptr<KvLease> made(new KvLease(*this, lease.num_layers_, lease.num_layers_, pages, pages));
  made->keeps_ = true;
  share_pages(lease, *made);
  return made;
}

Result<void> KvPool::take_pages(KvLease& lease) {
  const int64_t count = static_cast<int64_t>(lease.layers_at_once_) * (lease.num_pages_ - lease.shared_pages_);
  if (count > usage_.free)
    return fail(ErrorCode::kOverloaded, "the KV cache is full: " + std::to_string(count) + " pages asked for, " +
                                            std::to_string(usage_.free) + " of " + std::to_string(usage_.total) +
                                            " free");
  lease.slots_.assign(free_slots_.end() - count, free_slots_.end());
  free_slots_.resize(free_slots_.size() - static_cast<size_t>(count));
  for (const uint32_t slot : lease.slots_) change(slot, [](Slot& state) { state.leases = 1; });
  return {};
}

void KvPool::share_pages(const KvLease& from, KvLease& to) {
  RUNAHEAD_CHECK(&from.pool_ == this && from.layers_at_once_ == from.num_layers_ && to.shared_pages_ <= from.num_pages_,
                 "what is shared is there");
  for (int32_t layer = 0; layer < to.num_layers_; ++layer)
    for (int32_t page = 0; page < to.shared_pages_; ++page) {
      const auto slot = static_cast<uint32_t>(from.slot(layer, page));
      change(slot, [&](Slot& state) {
        ++state.leases;
        state.keepers += to.keeps_ ? 1 : 0;
        if (to.keeps_) state.quarantined = false;
      });
      to.shared_slots_.push_back(slot);
      if (!from.needs_upload(layer, page)) to.mark_on_device(layer, page);
    }
}

}  // namespace runahead
