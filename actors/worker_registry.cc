#include "actors/worker_registry.h"

#include "actors/messages.h"
#include "base/limits.h"
#include "transport/kv_address.h"

namespace runahead {
namespace {

std::unexpected<Error> incompatible(std::string what) { return fail(ErrorCode::kIncompatible, std::move(what)); }

// What a worker measured at its start counts as its first samples: a short chunk and one behind a long prefix.
void teach(WorkerEstimate& estimate, const ModelCost& model, const proto::Hello& hello) {
  const WorkerSpeed measured{hello.linear_seconds_per_token(), hello.attention_seconds_per_pair()};
  if (!(measured.a > 0) || !(measured.b >= 0)) return;
  for (const TokenRange chunk : {TokenRange{0, 512}, TokenRange{4096, 4608}})
    estimate.add_chunk(chunk, false, compute_seconds(measured, chunk_work(model, chunk, false)));
}

}  // namespace

Result<void> WorkerRegistry::check(const proto::Hello& hello) const {
  if (hello.protocol_version() != kProtocolVersion)
    return incompatible("the worker speaks protocol version " + std::to_string(hello.protocol_version()) +
                        ", the coordinator " + std::to_string(kProtocolVersion) + "; install the same release on both");
  if (!fingerprint_.empty() && hello.fingerprint() != fingerprint_)
    return incompatible("the worker runs " + hello.fingerprint() + ", this cluster " + fingerprint_ +
                        "; start it with the same model file and the same --compute");
  if (hello.num_layers() != shape_.num_layers || hello.page_bytes() == 0 ||
      hello.page_bytes() > limits::kPageBytesMax || (page_bytes_ != 0 && hello.page_bytes() != page_bytes_))
    return incompatible("the worker's K/V pages have another layout; start it with the same model and --compute");
  if (!kv_transport_.empty() && hello.kv_transport() != kv_transport_)
    return incompatible("the worker moves K/V over " + hello.kv_transport() + ", this cluster over " + kv_transport_ +
                        "; start it with --transport " + kv_transport_);
  if (hello.kv_address().empty() || hello.pages_total() <= 0 || hello.attempts_max() == 0)
    return incompatible("the worker's Hello is not complete; install the same release on both");
  const bool own_machine = leads_to_own_machine(hello.kv_address());
  for (const auto& [id, other] : workers_)
    if (other.incarnation != hello.incarnation() && leads_to_own_machine(other.kv_address) != own_machine)
      return incompatible("workers on other machines do not reach K/V at " +
                          (own_machine ? hello.kv_address() : other.kv_address + " of " + other.name) +
                          "; start that worker with --advertise and an address that they reach");
  if (workers_.size() >= static_cast<size_t>(limits::kWorkersMax))
    return fail(ErrorCode::kOverloaded,
                "the cluster has its number of workers (" + std::to_string(limits::kWorkersMax) + ")");
  return {};
}

Result<Worker*> WorkerRegistry::join(PeerId peer, const proto::Hello& hello, Time now) {
  TRY(check(hello));
  if (!cost_) {
    fingerprint_ = hello.fingerprint();
    compute_ = hello.compute();
    kv_transport_ = hello.kv_transport();
    page_bytes_ = hello.page_bytes();
    cost_ = runahead::model_cost({.num_layers = shape_.num_layers,
                                  .model_dim = shape_.model_dim,
                                  .num_heads = shape_.num_heads,
                                  .num_kv_heads = shape_.num_kv_heads,
                                  .head_dim = shape_.head_dim,
                                  .ffn_dim = shape_.ffn_dim,
                                  .vocab_size = shape_.vocab_size},
                                 page_bytes_);
  }
  const WorkerId id = ++last_id_;
  Worker worker{.id = id,
                .peer = peer,
                .incarnation = hello.incarnation(),
                .is_prefill = hello.role() == proto::Hello::PREFILL,
                .name = hello.name(),
                .device = hello.device(),
                .kv_address = hello.kv_address(),
                .pages_total = hello.pages_total(),
                .attempts_max = static_cast<int32_t>(std::min<uint32_t>(hello.attempts_max(), 1u << 16)),
                .speed = WorkerEstimate(*cost_),
                .heard_at = now,
                .pages_free_reported = hello.pages_total()};
  teach(worker.speed, *cost_, hello);
  return &workers_.emplace(id, std::move(worker)).first->second;
}

Worker* WorkerRegistry::find(WorkerId id) {
  const auto found = workers_.find(id);
  return found == workers_.end() ? nullptr : &found->second;
}

Worker* WorkerRegistry::by_peer(PeerId peer) {
  for (auto& [id, worker] : workers_)
    if (worker.peer == peer) return &worker;
  return nullptr;
}

Worker* WorkerRegistry::by_incarnation(uint64_t incarnation) {
  for (auto& [id, worker] : workers_)
    if (worker.incarnation == incarnation) return &worker;
  return nullptr;
}

bool WorkerRegistry::is_suspect(const Worker& worker, Time now) {
  return now - worker.heard_at >= limits::kSuspectAfter;
}

std::vector<WorkerId> WorkerRegistry::lost(Time now) const {
  std::vector<WorkerId> lost;
  for (const auto& [id, worker] : workers_)
    if (now - worker.heard_at >= limits::kLeaseDuration) lost.push_back(id);
  return lost;
}

bool WorkerRegistry::can_take(const Worker& worker, int64_t pages, Time now) {
  return !worker.draining && !is_suspect(worker, now) && worker.running() < worker.attempts_max &&
         worker.pages_total - worker.pages_held >= pages;
}

void WorkerRegistry::hold(Worker& worker, AttemptId attempt, int64_t pages) {
  worker.holds.emplace(attempt, pages);
  worker.pages_held += pages;
}

void WorkerRegistry::release(Worker& worker, AttemptId attempt) {
  const auto found = worker.holds.find(attempt);
  if (found == worker.holds.end()) return;
  worker.pages_held -= found->second;
  worker.holds.erase(found);
}

int64_t WorkerRegistry::pages_for_tokens(int32_t tokens) const {
  return static_cast<int64_t>(shape_.num_layers) * pages_for(tokens);
}

}  // namespace runahead
