// WorkerAttempt: what both workers hold for one attempt: its pages, its streams, and how it ended. It ends once, for
// one reason, and always the same way: streams closed, coroutines gone, pages back, and only then the coordinator is
// told. AttemptTable: all attempts of a worker, by id.
//   threads  the actor's executor only. owner: the worker's table.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "actors/messages.h"
#include "actors/worker/kept_prefixes.h"
#include "actors/worker/kv_streams.h"
#include "actors/worker/worker_env.h"
#include "base/async/gate.h"
#include "base/async/wake.h"

namespace runahead {

// What the engine could not get memory for ends one attempt; another worker, or a later try, may have it.
std::unexpected<Error> no_memory();

class WorkerAttempt {
 public:
  enum class End {
    kDone,    // the work is done
    kFailed,  // `failure` says why
    kTold,    // the coordinator ended it, or was lost
  };

  WorkerAttempt(const WorkerEnv& env, AttemptId id, Time deadline);

  const AttemptId& id() const { return id_; }
  Deadline deadline() const { return deadline_; }
  bool over() const { return end_.has_value(); }

  // The first call counts.
  void end(End how, Failure failure = {});
  // Waits for end(), or ends it when the deadline passes.
  asio::awaitable<End> until_over();
  const Failure& failure() const { return failure_; }
  // Takes pages. The first ones are those of a kept prefix, if it is to begin with one (kStale: there is none); what is to be
  // dropped is, before others are taken.
  Result<void> lease(const WorkerEnv& env, KeptPrefixes& kept, const PrefixOrder& order, LeaseShape shape);
  // The first pages of every layer, which nobody writes any more, stay under this number when the attempt has gone. 0: none does.
  int32_t keep(const WorkerEnv& env, KeptPrefixes& kept, uint64_t number, int32_t pages) const;
  // Closes the streams, waits for the attempt's coroutines, gives the pages back. Until then the pages are quarantined.
  asio::awaitable<void> release(WorkerSink& metrics);

  std::shared_ptr<KvLease> kv;  // shared with the streams, which pin it
  PrefixReceiver prefix;
  PageSender downstream;
  Gate gate;  // the attempt's own coroutines

 private:
  AttemptId id_;
  Deadline deadline_;
  std::optional<End> end_;
  Failure failure_;
  Wake over_;
};

template <class Attempt>
class AttemptTable {
 public:
  Attempt* find(AttemptId id) {
    const auto found = attempts_.find(id);
    return found == attempts_.end() ? nullptr : found->second.get();
  }
  Attempt& insert(std::unique_ptr<Attempt> attempt) {
    Attempt& inserted = *attempt;
    attempts_.emplace(inserted.id(), std::move(attempt));
    return inserted;
  }
  void erase(AttemptId id) { attempts_.erase(id); }
  int size() const { return static_cast<int>(attempts_.size()); }
  auto begin() { return attempts_.begin(); }
  auto end() { return attempts_.end(); }

 private:
  std::map<AttemptId, std::unique_ptr<Attempt>> attempts_;
};

}  // namespace runahead
