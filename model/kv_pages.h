// KvPool, KvLease: K and V of every token a worker can see. The receive buffer of the chain *is* this memory.
//   layout  one page = K and V of one layer, 64 consecutive tokens (kPageTokens), all KV heads; its inside is the compute
//           mode's (kernels/ops.h), its size is the same for all. A page never straddles two ranks. Unused token slots
//           of a partly filled page are zero (the engine clears it first), so that equal contexts have equal bytes.
//   owner   the pool: one allocation at start, registered with the transport once. A lease returns its pages when it
//           is destroyed; a pending transfer shares the lease (shared_ptr), so memory that a peer may still write is
//           never given to somebody else.
//   bytes   of pages are the engine's, in its own kernels. Others hand their address to a transport and ask here for what
//           reads or writes them (checksum, clear).
//   device  an engine on a GPU computes on pages there. Its pool has a twin for each page, at the same place of the device's
//           memory; transports and checksums know the host's alone. The engine brings what it wrote to the host beside its
//           computing (Engine::when_published), and what was received to the device when it first reads it; which pages are
//           there, the lease remembers.
//           Or the pages are the device's alone, for a transport that moves those (NCCL, CUDA IPC).
//   threads the pool is used on the actor thread only; the bytes of disjoint pages may be written concurrently, and one
//           page has one writer.
//   sharing full pages of a prompt's beginning can belong to several leases, which then only read them; the last one gives them
//           back.
//   layers  which pages of which layers a lease has memory for says its shape (model/lease_shape.h); nobody gets another one. Of
//           some of the layers at once (layers_at_once) later ones take the memory of earlier ones: who leases so keeps them
//           apart (actors/worker/layer_window.h).
//   ledger  free + kept + leased + quarantined = total at all times (`usage`).
// Source: paper 4.1; docs/ARCHITECTURE.md, ideas 2 and 3. Quarantined are pages of a transfer whose end nobody has told us.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "model/lease_shape.h"

namespace runahead {

class KvPool;

// The device's memory of a pool's pages: one of page_bytes() for each of the pool's, in the same order.
class DevicePages {
 public:
  virtual ~DevicePages() = default;
  virtual std::byte* data() = 0;
  virtual size_t page_bytes() const = 0;
  // Before anything else, where the pool has memory of the host for them, too: that memory.
  virtual void pair_with(std::span<std::byte>) {}
  // Are a page's bytes there what the engine's peers know as that page?
  virtual bool can_travel() const = 0;
};

// Pages of one sequence. Page p of every layer holds tokens [64 p, 64 p + 64).
class KvLease {
 public:
  ~KvLease();
  KvLease(const KvLease&) = delete;
  KvLease& operator=(const KvLease&) = delete;

  int32_t num_layers() const { return shape_.num_layers(); }
  int32_t layers_at_once() const { return shape_.layers_at_once; }
  int32_t num_pages() const { return shape_.num_pages; }  // a layer
  bool has(int32_t layer, int32_t page) const;
  // Does it have, of the first `pages` of each layer, what the token behind them sees?
  bool has_beginning(const ModelShape& model, int32_t pages) const;
  // The sequence goes on to this page, which has memory in every layer from now on; while nobody reads or writes. False: it was
  // further before, and what is in reach of this page has gone.
  bool reach(int32_t page);
  // What transports are given.
  std::span<std::byte> page(int32_t layer, int32_t page) const;
  bool is_on_host() const;  // else on the device alone, and whoever has the address cannot look
  // Where kernels find the page: its twin on the device, or itself.
  std::byte* device_page(int32_t layer, int32_t page) const;
  // For the engine, on its own thread: whether the twin holds what the page does. New leases hold nothing there; false for ever
  // where there are no twins to be filled.
  bool needs_upload(int32_t layer, int32_t page) const;
  void mark_on_device(int32_t layer, int32_t page);
  bool has_twins() const;
  // CRC32C of the page's bytes, which are on the host.
  uint32_t checksum(int32_t layer, int32_t page) const;
  void clear(int32_t layer, int32_t page);  // zeros, likewise
  // From now on the pages count as quarantined: nobody needs them any more, but a transport may still write them.
  void mark_quarantined();

 private:
  friend class KvPool;
  KvLease(KvPool& pool, LeaseShape shape);
  size_t at(int32_t layer, int32_t page) const;  // in the tables
  size_t slot(int32_t layer, int32_t page) const;
  void place_own_pages();
  void take_turn(int32_t layer, int32_t page);
  template <class Call>
  void for_each_slot(Call call) const;

  KvPool& pool_;
  LeaseShape shape_;
  bool keeps_ = false;  // made by share()
  int32_t reached_ = 0;  // page
  std::vector<uint32_t> shared_slots_, own_slots_;  // indices into the pool, each once
  std::vector<uint32_t> slots_;  // [num_layers, num_pages] likewise; kNoSlot: it has no memory
  std::vector<bool> on_device_;  // [num_layers, num_pages]; empty without twins
};

class KvPool {
 public:
  struct Usage {
    int64_t total = 0, free = 0, kept = 0, leased = 0, quarantined = 0;  // pages
    int64_t idle() const { return free + kept; }  // no attempt has them
  };

  // page_bytes is rounded up to 64. Allocates num_pages * page_bytes once; `device` has as many, or is null.
  KvPool(size_t page_bytes, int64_t num_pages, std::unique_ptr<DevicePages> device = nullptr);
  // Of the device alone: nothing is allocated here.
  KvPool(int64_t num_pages, std::unique_ptr<DevicePages> device);
  ~KvPool();  // every lease must be gone

  size_t page_bytes() const { return page_bytes_; }
  // kOverloaded if fewer than shape.own_pages() pages are free. Pages hold what was there before.
  Result<std::shared_ptr<KvLease>> lease(LeaseShape shape);
  Result<std::shared_ptr<KvLease>> lease(int32_t num_layers, int32_t tokens) {
    return lease(whole_lease(num_layers, tokens));
  }
  // Its first pages in every layer are those of `beginning`, as many as it has of shape.shared; only the others are new. Where
  // nobody else has the beginning any more, the rest of it is free for them.
  Result<std::shared_ptr<KvLease>> lease_behind(std::shared_ptr<KvLease> beginning, LeaseShape shape);
  // What is there of the first pages of every layer, for who keeps them: nobody writes them any more.
  std::shared_ptr<KvLease> share(const KvLease& lease, int32_t pages);
  Usage usage() const { return usage_; }
  // The whole allocation, for registration with a transport.
  std::span<std::byte> memory() { return {pages_, page_bytes_ * static_cast<size_t>(usage_.total)}; }

 private:
  friend class KvLease;
  struct Slot {
    int32_t leases = 0;
    int32_t keepers = 0;  // of those: made by share()
    bool quarantined = false;
  };
  int64_t& count_of(const Slot& slot);
  template <class Change>
  void change(uint32_t slot, Change change);
  void free_all(int64_t num_pages);
  Result<void> take_pages(KvLease& lease);
  void share_pages(const KvLease& from, KvLease& to);
  void give_back(uint32_t slot, bool keeper);

  size_t page_bytes_;
  AlignedBuffer buffer_;  // empty: the pages are the device's alone
  std::unique_ptr<DevicePages> device_;  // null: kernels read the host's
  std::byte* pages_;  // of buffer_ or device_: what transports know
  std::vector<uint32_t> free_slots_;
  std::vector<Slot> slots_;  // [total]
  Usage usage_;
};

}  // namespace runahead
