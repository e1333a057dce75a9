#include "actors/coordinator/worker_registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <ranges>
#include <set>

#include "actors/coordinator/peer_checks.h"
#include "actors/messages.h"
#include "base/limits.h"
#include "base/log_limit.h"
#include "transport/kv/kv_address.h"

namespace runahead {
namespace {

// What remembered workers are compared by: a chunk of a thousand tokens behind another.
constexpr Work kTypical{.tokens = 1000, .pairs = 1500.0 * 1000, .chunks = 1, .prefix_tokens = 1000};

// Requests after which half of a link's measured distance from the others is believed. So a link that is slow for good is tried
// again now and then (worker_speed_test.cc: within 400 requests, whatever it was).
constexpr int32_t kLinkHalfLife = 32;

std::unexpected<Error> incompatible(std::string what) { return fail(ErrorCode::kIncompatible, std::move(what)); }

// What a worker measured at its start, if it did.
WorkerSpeed expected_speed(const ModelCost& model, const proto::Hello& hello) {
  if (!(hello.seconds_per_token() > 0)) return default_speed(model);
  return {.seconds_per_token = hello.seconds_per_token(), .seconds_per_pair = hello.seconds_per_pair()};
}

}  // namespace

Result<void> WorkerRegistry::check(const proto::Hello& hello) const {
  if (hello.protocol_version() != kMessagesVersion)
    return incompatible("the worker speaks protocol version " + std::to_string(hello.protocol_version()) +
                        ", the coordinator " + std::to_string(kMessagesVersion) + "; install the same release on both");
  if (const Result<void> possible = check_hello(hello); !possible)
    return incompatible("the worker's Hello cannot be: " + possible.error().message +
                        "; install the same release on both");
  if (!hello.fingerprint().starts_with(required_.model))
    return incompatible("the worker runs another model file (" + foreign(hello.fingerprint()) +
                        "); start it with the coordinator's");
  if (!required_.fingerprint.empty() && hello.fingerprint() != required_.fingerprint)
    return incompatible("the worker runs " + foreign(hello.fingerprint()) + ", this cluster " + required_.fingerprint +
                        "; start it with the same model file and the same --compute");
  if (hello.num_layers() != shape_.num_layers || hello.context_len() != shape_.context_len)
    return incompatible("the worker's K/V pages have another layout; start it with the same model and --compute");
  if (!required_.kv_transport.empty() && hello.kv_transport() != required_.kv_transport)
    return incompatible("the worker moves K/V over " + foreign(hello.kv_transport()) + ", this cluster over " +
                        required_.kv_transport + "; start it with --transport " + required_.kv_transport);
  TRY(check_agreement(hello.fingerprint(), hello.page_bytes(), hello.kv_transport()));
  const bool own_machine = leads_to_own_machine(hello.kv_address());
  for (const auto& [id, other] : workers_)
    if (other.incarnation != hello.incarnation() && leads_to_own_machine(other.kv_address) != own_machine)
      return incompatible(
          "workers on other machines do not reach K/V at " +
          (own_machine ? foreign(hello.kv_address()) : foreign(other.kv_address) + " of " + other.name) +
          "; start that worker with --advertise and an address that they reach");
  const auto others = std::ranges::count_if(
      workers_, [&](const auto& entry) { return entry.second.incarnation != hello.incarnation(); });
  if (others >= limits::kWorkersMax)
    return fail(ErrorCode::kOverloaded,
                "the cluster has its number of workers (" + std::to_string(limits::kWorkersMax) + ")");
  return {};
}

Result<void> WorkerRegistry::check_agreement(const std::string& fingerprint, size_t page_bytes,
                                             const std::string& kv_transport) const {
  if (!agreed_) return {};
  if (fingerprint != agreed_->fingerprint)
    return incompatible("the worker runs " + foreign(fingerprint) + ", this cluster " + agreed_->fingerprint +
                        "; start it with the same model file and the same --compute");
  if (page_bytes != agreed_->page_bytes)
    return incompatible("the worker's K/V pages have another layout; start it with the same model and --compute");
  if (kv_transport != agreed_->kv_transport)
    return incompatible("the worker moves K/V over " + foreign(kv_transport) + ", this cluster over " +
                        agreed_->kv_transport + "; start it with --transport " + agreed_->kv_transport);
  return {};
}

Worker& WorkerRegistry::join(PeerId peer, const proto::Hello& hello, Time now) {
  const ModelCost cost = runahead::model_cost(shape_, hello.page_bytes());
  const WorkerId id = ++last_id_;
  Worker worker{.id = id,
                .peer = peer,
                .incarnation = hello.incarnation(),
                .is_prefill = hello.role() == proto::Hello::PREFILL,
                .name = hello.name(),
                .device = hello.device(),
                .kv_address = hello.kv_address(),
                .pages_total = hello.pages_total(),
                .attempts_max = static_cast<int32_t>(hello.attempts_max()),
                .speed = WorkerEstimate(cost, expected_speed(cost, hello)),
                .fingerprint = hello.fingerprint(),
                .compute = hello.compute(),
                .kv_transport = hello.kv_transport(),
                .page_bytes = static_cast<size_t>(hello.page_bytes()),
                .heard_at = now,
                .worked_at = now,
                .pages_free_reported = hello.pages_total()};
  if (const auto known = memory_.find(memory_key(worker)); known != memory_.end()) {
    worker.speed = WorkerEstimate(cost, known->second.speed);
    worker.speed_known = true;
    worker.remembered_seconds = compute_seconds(known->second.speed, kTypical);
    if (const auto rate = known->second.link_bytes_per_second)
      worker.ingress = LinkEstimate({.latency_seconds = default_link().latency_seconds, .bytes_per_second = *rate});
    worker.ingress_known = known->second.link_bytes_per_second.has_value();
    worker.link_idle = kLinkHalfLife;
  }
  Worker& joined = workers_.emplace(id, std::move(worker)).first->second;
  agree_with(joined);
  return joined;
}

// With a worker of the other role that says the same, or with what has been agreed before.
void WorkerRegistry::agree_with(const Worker& newcomer) {
  if (!agreed_) {
    Agreement offer{newcomer.fingerprint, newcomer.compute, newcomer.kv_transport, newcomer.page_bytes};
    const bool seconded = std::ranges::any_of(workers_, [&](const auto& entry) {
      return entry.second.is_prefill != newcomer.is_prefill && offer.holds_for(entry.second);
    });
    if (!seconded) return;
    cost_ = runahead::model_cost(shape_, offer.page_bytes);
    agreed_ = std::move(offer);
  }
  for (auto& [id, worker] : workers_) worker.agreed = agreed_->holds_for(worker);
}

std::string WorkerRegistry::disagreement() const {
  if (agreed_) return {};
  std::set<std::string> prefill, decode;  // what each role runs
  for (const auto& [id, worker] : workers_)
    (worker.is_prefill ? prefill : decode).insert(worker.compute + " over " + worker.kv_transport);
  if (prefill.empty() || decode.empty()) return {};
  return fmt::format(
      "no prefill worker ({}) runs what a decode worker runs ({}); start them with the same --compute and "
      "--transport",
      fmt::join(prefill, ", "), fmt::join(decode, ", "));
}

std::vector<std::pair<WorkerId, Error>> WorkerRegistry::outvoted() const {
  std::vector<std::pair<WorkerId, Error>> others;
  for (const auto& [id, worker] : workers_)
    if (const Result<void> same = check_agreement(worker.fingerprint, worker.page_bytes, worker.kv_transport); !same)
      others.emplace_back(id, same.error());
  return others;
}

std::string WorkerRegistry::memory_key(const Worker& worker) {
  return worker.fingerprint + " | " + worker.device + " | " + worker.name;
}

void WorkerRegistry::remember(const Worker& worker, SpeedMemory& memory) const {
  if (!is_measured(worker) && !is_link_measured(worker)) return;
  LearntSpeeds learnt{.speed = speed_of(worker), .link_bytes_per_second = {}};
  if (is_link_measured(worker)) learnt.link_bytes_per_second = worker.ingress.speed().bytes_per_second;
  memory.insert_or_assign(memory_key(worker), learnt);
  while (memory.size() > limits::kWorkersRememberedMax) memory.erase(memory.begin());
}

SpeedMemory WorkerRegistry::speeds() const {
  SpeedMemory memory = memory_;
  for (const auto& [id, worker] : workers_) remember(worker, memory);
  return memory;
}

void WorkerRegistry::remove(WorkerId id) {
  if (const Worker* worker = find(id)) {
    remember(*worker, memory_);
    if (const auto alike = devices_.find(worker->device); alike != devices_.end()) {
      alike->second.remove(id);
      if (alike->second.is_empty()) devices_.erase(alike);  // as many as there are workers at most
    }
  }
  workers_.erase(id);
  if (std::ranges::none_of(workers_, [](const auto& entry) { return entry.second.agreed; })) agreed_.reset();
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

bool WorkerRegistry::has_other(const Worker& worker, Time now) const {
  return std::ranges::any_of(workers_, [&](const auto& entry) {
    const Worker& other = entry.second;
    return other.id != worker.id && other.is_prefill == worker.is_prefill && other.agreed && !other.stuck &&
           !other.draining && !is_suspect(other, now);
  });
}

std::vector<WorkerId> WorkerRegistry::lost(Time now) const {
  std::vector<WorkerId> lost;
  for (const auto& [id, worker] : workers_)
    if (now - worker.heard_at >= limits::kLeaseDuration) lost.push_back(id);
  return lost;
}

int64_t WorkerRegistry::room(const Worker& worker) {
  return worker.pages_total - worker.pages_held - worker.prefixes.pages_in_use();
}

bool WorkerRegistry::can_take(const Worker& worker, int64_t pages, Time now) {
  return worker.agreed && !worker.stuck && !worker.draining && !is_suspect(worker, now) &&
         worker.running() < worker.attempts_max && worker.running() < worker.trusted && room(worker) >= pages;
}

void WorkerRegistry::note_work(Worker& worker, Time now) {
  worker.worked_at = now;
  worker.stuck = false;
}

void WorkerRegistry::note_success(Worker& worker) {
  worker.trusted = std::min<int64_t>(2 * worker.trusted, limits::kPeerAttemptsMax);
}

bool WorkerRegistry::has_lost_count(Worker& worker, uint32_t running, Time now) {
  if (running > 0 || worker.holds.empty()) worker.idle_since.reset();
  else if (!worker.idle_since) worker.idle_since = now;
  return worker.idle_since && now - *worker.idle_since >= limits::kLeaseDuration;
}

void WorkerRegistry::forgive(Duration absence) {
  for (auto& [id, worker] : workers_) {
    worker.heard_at += absence;
    worker.worked_at += absence;
    worker.idle_since.reset();
  }
}

WorkerSpeed WorkerRegistry::speed_of(const Worker& worker) const {
  if (const auto alike = devices_.find(worker.device); worker.is_prefill && alike != devices_.end())
    return alike->second.speed_of(worker.id, was_slower(worker.device));
  if (is_measured(worker)) return worker.speed.speed();
  std::vector<WorkerSpeed> alike, measured;
  for (const auto& [id, other] : workers_) {
    if (other.is_prefill != worker.is_prefill || other.device != worker.device) continue;
    (is_measured(other) ? measured : alike).push_back(other.speed.speed());
  }
  std::vector<WorkerSpeed>& known = measured.empty() ? alike : measured;
  const auto median = known.begin() + std::ssize(known) / 2;
  std::ranges::nth_element(known, median, {}, &WorkerSpeed::seconds_per_token);
  return *median;
}

// Of workers of one device, by what was remembered of them.
DeviceEstimate::WasSlower WorkerRegistry::was_slower(const std::string& device) const {
  std::vector<double> remembered;
  for (const auto& [id, worker] : workers_)
    if (worker.is_prefill && worker.device == device && worker.remembered_seconds > 0)
      remembered.push_back(worker.remembered_seconds);
  if (remembered.empty()) return [](uint64_t) { return 1.0; };
  const auto middle = remembered.begin() + std::ssize(remembered) / 2;
  std::ranges::nth_element(remembered, middle);
  return [this, median = *middle](uint64_t id) {
    const auto found = workers_.find(id);
    return found == workers_.end() || found->second.remembered_seconds == 0 ? 1
                                                                            : found->second.remembered_seconds / median;
  };
}

LinkSpeed WorkerRegistry::ingress_of(const Worker& worker) const {
  const LinkSpeed own = worker.ingress.speed();
  if (!is_link_measured(worker) || worker.link_idle == 0) return own;
  const double trust = std::exp2(-worker.link_idle / static_cast<double>(kLinkHalfLife));
  std::vector<double> alike;
  for (const auto& [id, other] : workers_)
    if (other.is_prefill == worker.is_prefill && is_link_measured(other))
      alike.push_back(other.ingress.speed().bytes_per_second);
  const auto median = alike.begin() + std::ssize(alike) / 2;  // the better of two
  std::ranges::nth_element(alike, median);
  return {.latency_seconds = own.latency_seconds,
          .bytes_per_second = std::pow(own.bytes_per_second, trust) * std::pow(*median, 1 - trust)};
}

void WorkerRegistry::learn_link(Worker& worker, double bytes, double seconds) {
  const bool anew = worker.link_idle >= kLinkHalfLife;  // what it was long ago does not doubt what it is
  LinkEstimate link = anew ? LinkEstimate(ingress_of(worker)) : worker.ingress;
  const int64_t before = link.samples();
  link.add_transfer(bytes, seconds);
  if (link.samples() == before) return;
  // One that is kept aside, for nothing like it was seen, is to be seen again soon.
  const double believed = link.speed().bytes_per_second * seconds / bytes;
  if (believed > 0.5 && believed < 2) worker.link_idle = 0;
  worker.ingress = std::move(link);
}

void WorkerRegistry::count_request() {
  for (auto& [id, worker] : workers_) worker.link_idle = std::min(worker.link_idle + 1, 16 * kLinkHalfLife);
}

void WorkerRegistry::learn(Worker& worker, TokenRange chunk, bool is_last_rank, double seconds) {
  const WorkerSpeed expected = speed_of(worker);
  const int64_t before = worker.speed.samples();
  worker.speed.add_chunk(chunk, is_last_rank, seconds);
  if (worker.speed.samples() == before) return;
  devices_.try_emplace(worker.device, model_cost(), expected)
      .first->second.add_chunk(worker.id, worker.speed, chunk, is_last_rank);
}

void WorkerRegistry::hold(Worker& worker, AttemptId attempt, WorkerPrefixes::Claim claim) {
  const int64_t pages = claim.lease.own_pages();
  worker.holds.emplace(attempt, pages);
  worker.pages_held += pages;
  worker.prefixes.begin(attempt, std::move(claim));
  while (worker.pages_held + worker.prefixes.pages() > worker.pages_total)
    if (!worker.prefixes.drop_oldest()) return;
}

void WorkerRegistry::keep_prompt(Worker& worker, AttemptId attempt, int32_t kept) {
  const int64_t pages = worker.prefixes.keep_prompt(attempt, kept);
  const auto found = worker.holds.find(attempt);
  if (found == worker.holds.end()) return;
  found->second -= pages;
  worker.pages_held -= pages;
}

void WorkerRegistry::release(Worker& worker, AttemptId attempt, int32_t kept) {
  worker.prefixes.end(attempt, kept);
  const auto found = worker.holds.find(attempt);
  if (found == worker.holds.end()) return;
  worker.pages_held -= found->second;
  worker.holds.erase(found);
  if (worker.holds.empty())
    worker.stuck = false;  // it answers, and is not busy with anything: a link may have been to blame
}

// Of the longest sequence that there is room for; where a whole context has room, of so many.
int64_t WorkerRegistry::tokens_in(int64_t pages) const {
  const auto needed = [this](int32_t columns) {
    return sequence_lease(shape_, 1, columns * kPageTokens, 0, false).own_pages();
  };
  const int32_t all = pages_for(shape_.context_len);
  if (pages >= needed(all)) return pages * all / needed(all) * kPageTokens;
  const auto columns = std::views::iota(1, all);
  return std::ranges::distance(columns.begin(), std::ranges::upper_bound(columns, pages, {}, needed)) * kPageTokens;
}

}  // namespace runahead
