// KeptPrefixes: beginnings of prompts whose K/V pages stay with a worker when their request has ended. The coordinator
// gives each its number, and says when it is dropped (actors/coordinator/worker_prefixes.h); all are dropped when it is lost, and
// numbers of another epoch mean nothing.
//   threads  the actor's executor only. limits: kKeptPrefixesMax, and as many that the coordinator drops with its next message.
#pragma once

#include <map>
#include <memory>

#include "base/limits.h"
#include "model/kv_pages.h"

namespace runahead {

class KeptPrefixes {
 public:
  // False: there are too many.
  bool keep(uint64_t epoch, uint64_t id, std::shared_ptr<KvLease> pages) {
    return prefixes_.size() < 2 * limits::kKeptPrefixesMax &&
           prefixes_.try_emplace({epoch, id}, std::move(pages)).second;
  }
  // Null: there is none of this number.
  std::shared_ptr<KvLease> find(uint64_t epoch, uint64_t id) const {
    const auto found = prefixes_.find({epoch, id});
    return found == prefixes_.end() ? nullptr : found->second;
  }
  void drop(uint64_t epoch, uint64_t id) { prefixes_.erase({epoch, id}); }
  void drop_all() { prefixes_.clear(); }

 private:
  std::map<std::pair<uint64_t, uint64_t>, std::shared_ptr<KvLease>> prefixes_;  // by epoch and number
};

}  // namespace runahead
