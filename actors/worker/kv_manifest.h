// KvManifest: which pages of a prefix have come. It knows for every layer how many pages are there without a gap, which
// is how far attention may go (position order, ADR 2), and when the whole prefix is complete, each page exactly
// once. Pure; one thread, but ready_pages() may be asked on the lane meanwhile: the pages that it counts can be read there.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/kv/kv_transport.h"

namespace runahead {

class KvManifest {
 public:
  KvManifest() = default;  // of an empty prefix: complete
  // Pages [0, have) of each layer are there already.
  KvManifest(int32_t num_layers, int32_t prefix_pages, int32_t have = 0)
      : KvManifest(prefix_pages, std::vector<int32_t>(static_cast<size_t>(num_layers), have)) {}
  // Pages [0, have[l]) of layer l are there already, or nobody reads them.
  KvManifest(int32_t prefix_pages, const std::vector<int32_t>& have)
      : num_layers_(static_cast<int32_t>(have.size())),
        prefix_pages_(prefix_pages),
        arrived_(have.size() * static_cast<size_t>(prefix_pages)),
        ready_(have) {
    for (size_t layer = 0; layer < have.size(); ++layer) {
      std::fill_n(arrived_.begin() + static_cast<ptrdiff_t>(layer * static_cast<size_t>(prefix_pages)), have[layer], true);
      count_ += static_cast<size_t>(have[layer]);
    }
  }

  // kCorrupt if the page is none of the prefix, or has come before.
  Result<void> mark(KvPageKey key) {
    if (key.layer < 0 || key.layer >= num_layers_ || key.page < 0 || key.page >= prefix_pages_)
      return fail(ErrorCode::kCorrupt, "a page outside the prefix arrived: " + describe(key));
    const size_t row = static_cast<size_t>(key.layer) * static_cast<size_t>(prefix_pages_);
    if (arrived_[row + static_cast<size_t>(key.page)])
      return fail(ErrorCode::kCorrupt, "a page arrived twice: " + describe(key));
    arrived_[row + static_cast<size_t>(key.page)] = true;
    ++count_;
    int32_t& counted = ready_[static_cast<size_t>(key.layer)];
    int32_t ready = counted;
    while (ready < prefix_pages_ && arrived_[row + static_cast<size_t>(ready)]) ++ready;
    std::atomic_ref(counted).store(ready, std::memory_order_release);
    return {};
  }

  // Pages [0, n) of the layer are there.
  int32_t ready_pages(int32_t layer) const {
    if (prefix_pages_ == 0) return 0;
    return std::atomic_ref(ready_[static_cast<size_t>(layer)]).load(std::memory_order_acquire);
  }
  bool complete() const { return count_ == arrived_.size(); }
  int32_t prefix_pages() const { return prefix_pages_; }

 private:
  static std::string describe(KvPageKey key) {
    return "layer " + std::to_string(key.layer) + ", page " + std::to_string(key.page);
  }

  int32_t num_layers_ = 0;
  int32_t prefix_pages_ = 0;  // a layer
  std::vector<bool> arrived_;  // [num_layers, prefix_pages]
  mutable std::vector<int32_t> ready_;  // [num_layers]; mutable: C++23 has no atomic_ref to const
  size_t count_ = 0;
};

}  // namespace runahead
