#include "model/kv_pages.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"

namespace runahead {

namespace {

constexpr uint32_t kNoSlot = UINT32_MAX;

}  // namespace

KvLease::KvLease(KvPool& pool, LeaseShape shape)
    : pool_(pool),
      shape_(std::move(shape)),
      slots_(static_cast<size_t>(num_layers()) * static_cast<size_t>(num_pages()), kNoSlot),
      on_device_(has_twins() ? slots_.size() : 0) {}

template <class Call>
void KvLease::for_each_slot(Call call) const {
  for (const std::vector<uint32_t>* slots : {&shared_slots_, &own_slots_})
    for (const uint32_t slot : *slots) call(slot);
}

KvLease::~KvLease() {
  for_each_slot([this](uint32_t slot) { pool_.give_back(slot, keeps_); });
}

size_t KvLease::at(int32_t layer, int32_t page) const {
  RUNAHEAD_CHECK(layer >= 0 && layer < num_layers() && page >= 0 && page < num_pages(), "page outside its lease");
  return static_cast<size_t>(layer) * static_cast<size_t>(num_pages()) + static_cast<size_t>(page);
}

size_t KvLease::slot(int32_t layer, int32_t page) const {
  RUNAHEAD_CHECK(has(layer, page), "a page out of its layer's reach");
  return slots_[at(layer, page)];
}

bool KvLease::has(int32_t layer, int32_t page) const { return slots_[at(layer, page)] != kNoSlot; }

bool KvLease::has_beginning(const ModelShape& model, int32_t pages) const {
  if (pages > num_pages()) return false;
  for (int32_t layer = 0; layer < num_layers(); ++layer)
    for (int32_t page = first_page_in_reach(pages * kPageTokens, model.window(layer)); page < pages; ++page)
      if (!has(layer, page)) return false;
  return true;
}

// Layers lie one behind the other in a ring that holds any layers_at_once of them.
void KvLease::place_own_pages() {
  size_t next = 0;
  for (int32_t layer = 0; layer < num_layers(); ++layer) {
    const LayerPages& pages = shape_.layers[static_cast<size_t>(layer)];
    for (int32_t page = pages.first; page < pages.end; ++page)
      slots_[at(layer, page)] = own_slots_[next++ % own_slots_.size()];
  }
}

bool KvLease::reach(int32_t page) {
  for (; reached_ < page; ++reached_)
    for (int32_t layer = 0; layer < num_layers(); ++layer) take_turn(layer, reached_ + 1);
  return reached_ == page || !shape_.has_turned(reached_);
}

void KvLease::take_turn(int32_t layer, int32_t page) {
  const LayerPages& pages = shape_.layers[static_cast<size_t>(layer)];
  if (pages.turn == 0 || page < pages.end) return;
  const size_t to = at(layer, page), from = at(layer, page - pages.turn);
  slots_[to] = std::exchange(slots_[from], kNoSlot);
  if (has_twins()) on_device_[from] = on_device_[to] = false;
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

bool KvLease::needs_upload(int32_t layer, int32_t page) const { return has_twins() && !on_device_[at(layer, page)]; }

void KvLease::mark_on_device(int32_t layer, int32_t page) {
  if (has_twins()) on_device_[at(layer, page)] = true;
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

Result<std::shared_ptr<KvLease>> KvPool::lease(LeaseShape shape) {
  RUNAHEAD_CHECK(shape.shared == 0 && shape.own_pages() > 0, "a lease has pages");
  std::shared_ptr<KvLease> made(new KvLease(*this, std::move(shape)));
  TRY(take_pages(*made));
  return made;
}

Result<std::shared_ptr<KvLease>> KvPool::lease_behind(std::shared_ptr<KvLease> beginning, LeaseShape shape) {
  RUNAHEAD_CHECK(shape.num_layers() == beginning->num_layers() && shape.own_pages() > 0,
                 "a lease has pages of its own");
  std::shared_ptr<KvLease> made(new KvLease(*this, std::move(shape)));
  share_pages(*beginning, *made);
  beginning.reset();
  TRY(take_pages(*made));
  return made;
}

std::shared_ptr<KvLease> KvPool::share(const KvLease& lease, int32_t pages) {
  std::shared_ptr<KvLease> made(
      new KvLease(*this, whole_lease(lease.num_layers(), pages * kPageTokens, /*shared=*/pages)));
  made->keeps_ = true;
  share_pages(lease, *made);
  return made;
}

Result<void> KvPool::take_pages(KvLease& lease) {
  const int64_t count = lease.shape_.own_pages();
  if (count > usage_.free)
    return fail(ErrorCode::kOverloaded, "the KV cache is full: " + std::to_string(count) + " pages asked for, " +
                                            std::to_string(usage_.free) + " of " + std::to_string(usage_.total) +
                                            " free");
  lease.own_slots_.assign(free_slots_.end() - count, free_slots_.end());
  free_slots_.resize(free_slots_.size() - static_cast<size_t>(count));
  for (const uint32_t slot : lease.own_slots_) change(slot, [](Slot& state) { state.leases = 1; });
  lease.place_own_pages();
  return {};
}

void KvPool::share_pages(const KvLease& from, KvLease& to) {
  RUNAHEAD_CHECK(
      &from.pool_ == this && from.layers_at_once() == from.num_layers() && to.shape_.shared <= from.num_pages(),
      "what is shared is there");
  for (int32_t layer = 0; layer < to.num_layers(); ++layer)
    for (int32_t page = 0; page < to.shape_.shared; ++page) {
      if (!from.has(layer, page)) continue;
      const auto slot = static_cast<uint32_t>(from.slot(layer, page));
      change(slot, [&](Slot& state) {
        ++state.leases;
        state.keepers += to.keeps_ ? 1 : 0;
        if (to.keeps_) state.quarantined = false;
      });
      to.shared_slots_.push_back(slot);
      to.slots_[to.at(layer, page)] = slot;
      if (!from.needs_upload(layer, page)) to.mark_on_device(layer, page);
    }
}

}  // namespace runahead
