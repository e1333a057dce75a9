// CoordinatorCore: planning and dispatch. A request starts when workers with room for all of it are there; it gets the
// plan that is best for them now, and one message goes to every link of its chain.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "actors/coordinator/coordinator_core.h"
#include "base/check.h"
#include "base/limits.h"
#include "transport/kv/kv_address.h"
#include "transport/little_endian.h"

namespace runahead {
namespace {

// The prompt of the next attempt: what the client sent and what it has got.
std::vector<TokenId> whole_prompt(const std::vector<TokenId>& prompt, const std::vector<TokenId>& emitted) {
  std::vector<TokenId> whole = prompt;
  whole.insert(whole.end(), emitted.begin(), emitted.end());
  return whole;
}

uint32_t milliseconds_left(Time deadline, Time now) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now).count();
  return static_cast<uint32_t>(std::max<int64_t>(left, 1));
}

void encode_hop(const Worker& peer, StreamToken stream_token, proto::KvPeer& hop) {
  hop.set_kv_address(peer.kv_address);
  std::array<std::byte, sizeof(StreamToken)> token;
  store_token(token.data(), stream_token);
  hop.set_stream_token(token.data(), token.size());
  hop.set_worker(peer.id);
}

}  // namespace

bool CoordinatorCore::start_next(Time now) {
  for (;;) {
    // By their order, as on the lanes: a request that waits for room is not overtaken, one that waits for its time is.
    const auto place = [&](RequestId id) {
      const Request& request = *find(id);
      return std::pair(request.not_before > now || is_awaiting(request, now), request.order);
    };
    const auto next = std::ranges::min_element(waiting_, {}, place);
    if (next == waiting_.end() || place(*next).first) return false;
    Request& request = *find(*next);
    const std::optional<Assignment> assignment = choose_workers(request, now);
    if (!assignment) return false;
    const Result<Planned> planned = plan_best(request, *assignment);
    if (!planned) {
      end_with_error(request, planned.error(), RequestOutcome::kError, now);
      return true;
    }
    if (!has_room(*planned)) return false;
    if (await_beginning(request, *planned, now)) continue;
    waiting_.erase(next);
    waiting_tokens_ -= std::ssize(request.spec.prompt);
    dispatch(request, planned->assignment, planned->plan, now);
    gauges();
    return true;
  }
}

void CoordinatorCore::dispatched(Time now) {
  Request* request = find(last_started_);
  if (request && !request->reported) request->stamps.dispatched = now;
}

// Prefill workers with room for the whole prompt, the least busy first; the least busy decode worker with room for
// every token. A worker that an earlier attempt blamed is taken only if there is nobody else. Where layers have windows, ranks
// behind the first need less than the whole prompt: if nobody has room for that, all may be tried, and the plan decides.
std::optional<CoordinatorCore::Assignment> CoordinatorCore::choose_workers(const Request& request, Time now) const {
  const auto prompt = static_cast<int32_t>(request.spec.prompt.size() + request.emitted.size());
  const auto left = request.spec.max_new_tokens - static_cast<int32_t>(request.emitted.size());
  const auto hit_of = [&](const Worker& worker) {
    return worker.prefixes.find(request.keys, (prompt - 1) / kPageTokens);
  };
  // The decode worker's: what other attempts read of the prompt there needs no room.
  const auto own_pages = [&](const Worker& worker) {
    if (worker.is_prefill) return whole_lease(options_.shape.num_layers, prompt).own_pages();
    const WorkerPrefixes::Hit hit = hit_of(worker);
    const LeaseShape lease = sequence_lease(options_.shape, prompt, prompt + left, hit.columns, false);
    return lease.own_pages() + worker.prefixes.pages_idle(hit);
  };
  const auto choose = [&](bool is_prefill, bool whole = true) {
    std::vector<const Worker*> good, blamed;
    for (const auto& [id, worker] : registry_.workers())
      if (worker.is_prefill == is_prefill && WorkerRegistry::can_take(worker, whole ? own_pages(worker) : 1, now))
        (request.avoid.contains(id) ? blamed : good).push_back(&worker);
    if (good.empty() || !whole) std::ranges::move(blamed, std::back_inserter(good));
    std::ranges::stable_sort(good, {}, [](const Worker* worker) { return worker->running(); });
    return good;
  };
  std::vector<const Worker*> prefill = choose(true);
  if (prefill.empty() && !options_.shape.windows.empty()) prefill = choose(true, /*whole=*/false);
  const std::vector<const Worker*> decode = choose(false);
  if (prefill.empty() || decode.empty()) return std::nullopt;
  if (request.spec.strategy == Strategy::kByHand) {
    // Rank r is the worker with the r-th id. If there are enough workers, those that are busy are worth waiting for.
    std::ranges::sort(prefill, {}, &Worker::id);
    const size_t ranks = request.spec.cuts.size() + 1;
    const auto all = std::ranges::count_if(registry_.workers(), [&](const auto& entry) {
      return entry.second.is_prefill && !entry.second.draining && !request.avoid.contains(entry.first);
    });
    if (prefill.size() < ranks && static_cast<size_t>(all) >= ranks) return std::nullopt;
  }
  const auto most = static_cast<size_t>(request.spec.workers_max > 0 ? request.spec.workers_max : limits::kWorkersMax);
  // Of those that are equally busy, the one that has most of the prompt.
  Assignment assignment{.prefill_max = std::min(prefill.size(), most), .decode = decode.front()->id};
  for (const Worker* worker : decode) {
    const WorkerPrefixes::Hit hit = hit_of(*worker);
    if (worker->running() > decode.front()->running() || hit.columns <= assignment.kept.decode.columns) continue;
    assignment.decode = worker->id;
    assignment.kept.decode = hit;
  }
  for (const Worker* worker : prefill) assignment.prefill.push_back(worker->id);
  return assignment;
}

// From the first token on, or behind what one of the workers has kept: whichever has its first token sooner, of those that there
// is room for.
Result<CoordinatorCore::Planned> CoordinatorCore::plan_best(const Request& request,
                                                            const Assignment& assignment) const {
  Assignment whole = assignment;
  whole.prefill.resize(whole.prefill_max);
  Planned best{whole, TRY(plan_for(request, whole))};
  bool fits = has_room(best);
  if (!fits) {  // a longer chain needs less of each
    best.plan = TRY(plan_for(request, whole, static_cast<int32_t>(whole.prefill.size())));
    fits = has_room(best);
  }
  for (Assignment& other : with_kept_beginnings(request, assignment)) {
    Planned planned{std::move(other), {}};
    planned.plan = TRY(plan_for(request, planned.assignment));
    const bool sooner = planned.plan.predicted_ttft_seconds < best.plan.predicted_ttft_seconds;
    if (!has_room(planned) || (fits && !sooner)) continue;
    best = std::move(planned);
    fits = true;
  }
  return best;
}

LeaseShape CoordinatorCore::rank_lease_of(const Plan& plan, size_t rank, int32_t shared) const {
  return rank_lease(options_.shape, plan.ranks[rank].range, rank == 0 ? shared : 0, rank + 1 == plan.ranks.size());
}

// Of every rank, on its worker.
bool CoordinatorCore::has_room(const Planned& planned) const {
  const WorkerPrefixes::Hit& hit = planned.assignment.kept.first;
  for (size_t rank = 0; rank < planned.plan.ranks.size(); ++rank) {
    const Worker& worker =
        registry_.workers().at(planned.assignment.prefill[static_cast<size_t>(planned.plan.ranks[rank].worker)]);
    const int64_t read = rank == 0 ? worker.prefixes.pages_idle(hit) : 0;
    if (WorkerRegistry::room(worker) < rank_lease_of(planned.plan, rank, hit.columns).own_pages() + read) return false;
  }
  return true;
}

// Of a chain of all workers, when they have nothing else to do.
bool CoordinatorCore::could_have_room(const InferenceRequest& request, int32_t prompt_len) const {
  Result<PlanRequest> plan = plan_request(request, prompt_len);
  if (!plan) return false;
  std::vector<int64_t> pages;
  for (const auto& [id, worker] : registry_.workers()) {
    if (!worker.is_prefill || worker.draining || worker.stuck) continue;
    plan->workers.push_back({registry_.speed_of(worker), registry_.ingress_of(worker)});
    pages.push_back(worker.pages_total);
  }
  if (request.workers_max > 0 && std::ssize(pages) > request.workers_max)
    plan->workers.resize(static_cast<size_t>(request.workers_max));
  plan->ranks = static_cast<int32_t>(plan->workers.size());
  const Result<Plan> made = make_plan(*plan);
  if (!made) return false;
  for (size_t rank = 0; rank < made->ranks.size(); ++rank)
    if (rank_lease_of(*made, rank, 0).own_pages() > pages[static_cast<size_t>(made->ranks[rank].worker)]) return false;
  return true;
}

// Cuts that somebody has chosen are of the whole prompt, and so are its log-probabilities.
bool CoordinatorCore::may_begin_later(const Request& request) const {
  const Strategy strategy = request.spec.strategy;
  return (strategy == Strategy::kBalanced || strategy == Strategy::kSingle) && !request.spec.prompt_logprobs;
}

// Until that attempt has left its pages, or is not what it was.
bool CoordinatorCore::is_awaiting(const Request& request, Time now) const {
  if (!request.awaited || now >= request.awaited_until) return false;
  const auto other = requests_.find(request.awaited->request);
  return other != requests_.end() && other->second.attempt && other->second.attempt->id == *request.awaited &&
         !other->second.attempt->has_left_pages();
}

// Part of its prompt is being computed for an earlier request. If it has its first token sooner by waiting for that and beginning
// behind it, it does, and nobody computes it twice: choices of one prompt, questions about one document.
bool CoordinatorCore::await_beginning(Request& request, const Planned& planned, Time now) const {
  constexpr double kPatience = 2;  // of what is expected to be left: predictions are late now and then
  constexpr double kPatienceSeconds = 1;
  if (!may_begin_later(request)) return false;
  const auto tokens = static_cast<int32_t>(request.spec.prompt.size() + request.emitted.size());
  double best = planned.plan.predicted_ttft_seconds, expected = 0;
  std::optional<AttemptId> found;
  for (const auto& [id, other] : requests_) {
    if (!other.attempt || other.attempt->keeps_tokens == 0 || other.attempt->rank_done.back() ||
        !(other.order < request.order))
      continue;
    const Attempt& attempt = *other.attempt;
    const Worker* keeper = registry_.find(attempt.ranks.back());
    if (keeper == nullptr || keeper->stuck || keeper->draining || WorkerRegistry::is_suspect(*keeper, now)) continue;
    const int32_t columns = common_columns(request.keys, other.keys, (tokens - 1) / kPageTokens);
    if (columns <= planned.assignment.kept.begin || columns < attempt.keeps_least) continue;
    const double left = attempt.predicted_seconds - seconds(now - attempt.dispatched_at);
    if (left < -attempt.predicted_seconds) continue;  // nobody knows when
    const double sum = std::max(left, 0.0) + seconds_behind(columns, tokens);
    if (sum >= best) continue;
    best = sum;
    expected = std::max(left, 0.0);
    found = attempt.id;
  }
  if (!found || (request.awaited && *request.awaited == *found)) return false;  // once each
  request.awaited = found;
  request.awaited_until =
      now + from_seconds(std::min(kPatience * expected + kPatienceSeconds, limits::kReportedSecondsMax));
  return true;
}

std::vector<CoordinatorCore::Assignment> CoordinatorCore::with_kept_beginnings(const Request& request,
                                                                               const Assignment& assignment) const {
  constexpr size_t kTried = 3;  // of each kind, those with the most: each is a plan of its own
  if (!may_begin_later(request)) return {};
  const auto columns_max =
      static_cast<int32_t>((request.spec.prompt.size() + request.emitted.size() - 1) / kPageTokens);
  std::vector<Assignment> own, given;
  for (const WorkerId id : assignment.prefill) {
    Assignment other = assignment;
    other.kept.first = registry_.workers().at(id).prefixes.find(request.keys, columns_max);
    other.kept.begin = other.kept.first.columns;
    const auto place = std::ranges::find(other.prefill, id);
    std::rotate(other.prefill.begin(), place, place + 1);
    other.prefill.resize(other.prefill_max);
    if (other.kept.begin > 0) own.push_back(other);
    if (other.kept.decode.columns <= other.kept.begin || !may_give(other.decode, id)) continue;
    other.kept.begin = other.kept.decode.columns;
    given.push_back(std::move(other));
  }
  std::vector<Assignment> all;
  for (std::vector<Assignment>* kind : {&own, &given}) {
    std::ranges::stable_sort(*kind, std::ranges::greater(),
                             [](const Assignment& one) { return one.kept.first.columns; });
    if (kind->size() > kTried) kind->resize(kTried);
    std::ranges::move(*kind, std::back_inserter(all));
  }
  return all;
}

// Not over NCCL: the same two GPUs would send to each other at once, over two communicators, which nobody has tried.
bool CoordinatorCore::may_give(WorkerId decode, WorkerId first) const { return hop_transport(decode, first) != "nccl"; }

// Before rank 0 begins, as if it computed nothing meanwhile.
double CoordinatorCore::giving_seconds(const Assignment& assignment) const {
  const KeptBeginning& kept = assignment.kept;
  if (!kept.is_given()) return 0;
  const LinkSpeed link = registry_.workers().at(assignment.prefill.front()).given.speed();
  const double tokens = std::min<double>((kept.begin - kept.first.columns) * kPageTokens,
                                         tokens_in_reach(registry_.model_cost(), kept.begin * kPageTokens));
  return tokens * registry_.model_cost().kv_bytes_per_token / link.bytes_per_second + link.latency_seconds;
}

// All but the workers.
Result<PlanRequest> CoordinatorCore::plan_request(const InferenceRequest& request, int32_t prompt_len) const {
  PlanRequest plan{.strategy = request.strategy,
                   .context_len = prompt_len,
                   .model = registry_.model_cost(),
                   .cuts = request.cuts,
                   .stretch = &stretch_};
  const bool by_table = plan.strategy == Strategy::kSearched || plan.strategy == Strategy::kPredicted;
  if (by_table && !options_.split_table)
    return fail(ErrorCode::kInvalidArgument,
                "the strategy '" + std::string(name(plan.strategy)) +
                    "' needs a table of cuts: make one with `runahead plan search` and start with --split-table",
                "strategy");
  if (by_table) {
    if (options_.split_table->identity != registry_.fingerprint())
      return fail(ErrorCode::kInvalidArgument,
                  "the table of cuts was searched with " + options_.split_table->identity + ", this cluster runs " +
                      registry_.fingerprint() + "; search again with `runahead plan search`",
                  "strategy");
    plan.table = &*options_.split_table;
  }
  return plan;
}

Result<Plan> CoordinatorCore::plan_for(const Request& request, const Assignment& assignment, int32_t ranks) const {
  const size_t prompt_len = request.spec.prompt.size() + request.emitted.size();
  PlanRequest plan = TRY(plan_request(request.spec, static_cast<int32_t>(prompt_len)));
  plan.begin = assignment.kept.begin * kPageTokens;
  plan.ranks = ranks;
  const size_t needed = plan.table != nullptr ? plan.table->entries.front().shares.size() : plan.cuts.size() + 1;
  if (request.attempts > 0 && assignment.prefill.size() < needed) {  // a worker of the cuts is gone: do without
    plan.strategy = Strategy::kBalanced;
    plan.cuts.clear();
  }
  for (const WorkerId id : assignment.prefill) {
    const Worker& worker = registry_.workers().at(id);
    plan.workers.push_back({.speed = registry_.speed_of(worker),
                            .ingress = registry_.ingress_of(worker),
                            .busy_seconds = busy_seconds(id, request.order)});
  }
  plan.workers.front().busy_seconds += giving_seconds(assignment);
  return make_plan(plan);
}

// Of the work that this worker has and will do first.
double CoordinatorCore::busy_seconds(WorkerId worker, LaneOrder before) const {
  double busy = 0;
  for (const auto& [id, request] : requests_) {
    if (!request.attempt || request.order > before) continue;
    const Attempt& attempt = *request.attempt;
    for (size_t rank = 0; rank < attempt.ranks.size(); ++rank)
      if (attempt.ranks[rank] == worker) busy += attempt.rank_seconds[rank] * (1 - attempt.progress[rank]);
  }
  return busy;
}

// Who gets the pages behind a rank.
WorkerId CoordinatorCore::receiver(const Attempt& attempt, size_t rank) const {
  return rank + 1 < attempt.ranks.size() ? attempt.ranks[rank + 1] : attempt.decode;
}

// What carries pages from one to the other.
std::string CoordinatorCore::hop_transport(WorkerId from_id, WorkerId to_id) const {
  const Worker* from = registry_.find(from_id);
  const Worker* to = registry_.find(to_id);
  const std::string shared =
      from != nullptr && to != nullptr ? transport_in_common(from->kv_address, to->kv_address) : std::string();
  return shared.empty() ? registry_.kv_transport() : shared;
}

// "tcp", or "tcp, ucx" where the hops are unlike.
std::string CoordinatorCore::transports_of(const Attempt& attempt) const {
  std::set<std::string> all;
  for (size_t rank = 0; rank < attempt.ranks.size(); ++rank)
    all.insert(hop_transport(attempt.ranks[rank], receiver(attempt, rank)));
  if (attempt.kept.is_given()) all.insert(hop_transport(attempt.decode, attempt.ranks.front()));
  return fmt::format("{}", fmt::join(all, ", "));
}

void CoordinatorCore::dispatch(Request& request, const Assignment& assignment, const Plan& plan, Time now) {
  const std::vector<TokenId> prompt = whole_prompt(request.spec.prompt, request.emitted);
  Attempt& attempt = request.attempt.emplace(Attempt{});  // clang 19 sees no default constructor here
  attempt.id = {options_.epoch, request.id, ++request.attempts};
  attempt.decode = assignment.decode;
  attempt.kept = assignment.kept;
  attempt.base = request.emitted.size();
  for (const PlannedRank& rank : plan.ranks) {
    attempt.ranks.push_back(assignment.prefill[static_cast<size_t>(rank.worker)]);
    attempt.chunks.push_back(rank.range);
    attempt.rank_seconds.push_back(rank.compute_seconds);
    attempt.profiles.push_back(rank.profile);
  }
  attempt.is_alone =
      std::ranges::count_if(requests_, [](const auto& entry) { return entry.second.attempt.has_value(); }) == 1;
  attempt.dispatched_at = now;
  registry_.count_request();
  attempt.progress.resize(plan.ranks.size());
  attempt.rank_done.resize(plan.ranks.size());
  if (request.spec.prompt_logprobs && !request.scored)
    attempt.scores.emplace(attempt.chunks, *request.spec.prompt_logprobs);
  attempt.predicted_seconds = plan.predicted_ttft_seconds;
  attempt.progress_at = now;
  attempt.ranks_left = static_cast<int>(plan.ranks.size());
  if (!request.reported) begin_report(request, plan, now);
  std::vector<StreamToken> stream_tokens;  // [num_ranks + 1], of the hop into each rank and into the decode worker
  for (size_t rank = 0; rank <= attempt.ranks.size(); ++rank) stream_tokens.push_back({rng_.next(), rng_.next()});
  std::vector<PageKey> keys = keys_of(request, prompt);
  for (size_t rank = 0; rank < attempt.ranks.size(); ++rank)
    send_step(request, rank, chain_step(request, prompt, rank, stream_tokens, now),
              rank + 1 == attempt.ranks.size() ? keys : std::vector<PageKey>());
  send_decode(request, decode_order(request, prompt, stream_tokens, now), std::move(keys));
  last_started_ = request.id;
}

std::vector<PageKey> CoordinatorCore::keys_of(const Request& request, const std::vector<TokenId>& prompt) const {
  if (!options_.prefix_cache) return {};
  std::vector<PageKey> keys = request.keys;
  extend_page_keys(keys, request.spec.cache_salt, prompt);
  return keys;
}

// With what the worker reads of its kept pages, what it keeps for later prompts (keys: of a last rank's full pages), and what it
// drops to have room.
void CoordinatorCore::send_step(Request& request, size_t rank, proto::Envelope message, std::vector<PageKey> keys) {
  Attempt& attempt = *request.attempt;
  Worker& worker = *registry_.find(attempt.ranks[rank]);
  const bool is_last = rank + 1 == attempt.ranks.size();
  WorkerPrefixes::Claim claim;
  if (rank == 0) claim.hit = attempt.kept.first;
  claim.lease = rank_lease(options_.shape, attempt.chunks[rank], claim.hit.columns, is_last);
  if (std::ssize(keys) > claim.hit.columns) {
    claim.keep = ++last_prefix_;
    claim.keys = std::move(keys);
    claim.least = attempt.keeps_least = least_columns(worker, claim.hit, attempt.chunks[rank].first_page());
    attempt.keeps_tokens = static_cast<int32_t>(std::ssize(claim.keys) - attempt.kept.begin) * kPageTokens;
  }
  claim_pages(worker, attempt.id, std::move(claim), *message.mutable_run_chain_step());
  send(worker.id, std::move(message));
}

// WorkerPrefixes::Claim::least of a worker whose tokens begin with this column: it gets, of layers with a window, only what those
// see.
int32_t CoordinatorCore::least_columns(const Worker& worker, const WorkerPrefixes::Hit& hit, int32_t begin) const {
  const std::vector<int32_t>& windows = options_.shape.windows;
  const bool has_all = std::ranges::all_of(
      windows, [&](int32_t window) { return first_page_in_reach(begin * kPageTokens, window) <= hit.columns; });
  return has_all ? worker.prefixes.least_of(hit) : begin;
}

// It keeps the prompt as soon as it has come, if there is room for what layers with a window have then beside their newest pages;
// and in the end the answer, too, whose keys are known when it has ended (key_answer).
void CoordinatorCore::send_decode(Request& request, proto::Envelope message, std::vector<PageKey> prompt_keys) {
  Attempt& attempt = *request.attempt;
  const auto tokens = static_cast<int32_t>(request.spec.prompt.size()) + request.spec.max_new_tokens;
  WorkerPrefixes::Claim claim{.hit = attempt.kept.decode};
  Worker& worker = *registry_.find(attempt.decode);
  if (options_.prefix_cache && tokens > kPageTokens) claim.keep = ++last_prefix_;
  const int32_t prompt = attempt.chunks.back().end;
  claim.least = least_columns(worker, claim.hit, prompt / kPageTokens);
  claim.lease = sequence_lease(options_.shape, prompt, tokens, claim.hit.columns, /*keeps_prompt=*/true);
  attempt.prompt_kept = std::ssize(prompt_keys) <= claim.hit.columns ||
                        WorkerRegistry::room(worker) < claim.lease.own_pages() + worker.prefixes.pages_idle(claim.hit);
  if (attempt.prompt_kept) {
    claim.lease = sequence_lease(options_.shape, prompt, tokens, claim.hit.columns, /*keeps_prompt=*/false);
  } else {
    claim.keep_prompt = ++last_prefix_;
    claim.prompt_keys = std::move(prompt_keys);
  }
  message.mutable_run_decode()->set_keep_prompt(claim.keep_prompt);
  claim_pages(worker, attempt.id, std::move(claim), *message.mutable_run_decode());
  send(attempt.decode, std::move(message));
}

template <class Order>
void CoordinatorCore::claim_pages(Worker& worker, AttemptId attempt, WorkerPrefixes::Claim claim, Order& order) {
  order.set_from_prefix(claim.hit.prefix);
  order.set_kept_pages(claim.hit.columns);
  order.set_keep_prefix(claim.keep);
  WorkerRegistry::hold(worker, attempt, std::move(claim));
  for (const uint64_t dropped : worker.prefixes.take_dropped()) order.add_drop_prefixes(dropped);
}

void CoordinatorCore::begin_report(Request& request, const Plan& plan, Time now) const {
  const Attempt& attempt = *request.attempt;
  request.stamps.plan_started = request.stamps.dispatched = now;
  request.report = {.predicted_ttft_seconds = plan.predicted_ttft_seconds,
                    .strategy = plan.strategy,
                    .cuts = cuts_of(attempt.chunks),
                    .transport = transports_of(attempt),
                    .compute = registry_.compute(),
                    .cached_tokens = attempt.kept.begin * kPageTokens,
                    .decode_worker = registry_.find(attempt.decode)->name};
  for (size_t rank = 0; rank < attempt.ranks.size(); ++rank) {
    const Worker& worker = *registry_.find(attempt.ranks[rank]);
    request.report.ranks.push_back({.rank = static_cast<int32_t>(rank),
                                    .worker = worker.name,
                                    .device = worker.device,
                                    .chunk = attempt.chunks[rank]});
  }
}

proto::Envelope CoordinatorCore::chain_step(const Request& request, const std::vector<TokenId>& prompt, size_t rank,
                                            const std::vector<StreamToken>& stream_tokens, Time now) const {
  const Attempt& attempt = *request.attempt;
  const bool is_last = rank + 1 == attempt.ranks.size();
  const TokenRange chunk = attempt.chunks[rank];
  proto::Envelope message = envelope(attempt.id);
  proto::RunChainStep& step = *message.mutable_run_chain_step();
  step.set_rank(static_cast<uint32_t>(rank));
  step.set_num_ranks(static_cast<uint32_t>(attempt.ranks.size()));
  step.set_begin(chunk.begin);
  step.set_end(chunk.end);
  step.mutable_tokens()->Add(prompt.begin() + chunk.begin, prompt.begin() + chunk.end);
  if (rank > 0 || attempt.kept.is_given())
    encode_hop(registry_.workers().at(rank > 0 ? attempt.ranks[rank - 1] : attempt.decode), stream_tokens[rank],
               *step.mutable_upstream());
  encode_hop(registry_.workers().at(receiver(attempt, rank)), stream_tokens[rank + 1], *step.mutable_downstream());
  if (is_last) {
    step.set_downstream_has(attempt.kept.decode.columns);
    encode(request.spec.sampling, *step.mutable_sampling());
    if (depends_on_tokens(request.spec.sampling)) step.mutable_prompt()->Add(prompt.begin(), prompt.end());
  }
  step.set_prompt_len_original(static_cast<uint32_t>(request.spec.prompt.size()));
  step.set_deadline_ms(milliseconds_left(request.deadline, now));
  step.set_lane_due(request.order.due);
  if (attempt.scores) {
    step.mutable_scoring()->set_top(*request.spec.prompt_logprobs);
    if (!is_last) step.mutable_scoring()->set_next_token(prompt[static_cast<size_t>(chunk.end)]);
  }
  return message;
}

proto::Envelope CoordinatorCore::decode_order(const Request& request, const std::vector<TokenId>& prompt,
                                              const std::vector<StreamToken>& stream_tokens, Time now) const {
  const Attempt& attempt = *request.attempt;
  proto::Envelope message = envelope(attempt.id);
  proto::RunDecode& order = *message.mutable_run_decode();
  order.set_prompt_len(static_cast<int32_t>(prompt.size()));
  encode_hop(registry_.workers().at(attempt.ranks.back()), stream_tokens.back(), *order.mutable_upstream());
  if (attempt.kept.is_given()) {
    encode_hop(registry_.workers().at(attempt.ranks.front()), stream_tokens.front(), *order.mutable_beginning());
    order.set_beginning_from(attempt.kept.first.columns);
  }
  encode(request.spec.sampling, *order.mutable_sampling());
  order.set_max_new_tokens(static_cast<uint32_t>(request.spec.max_new_tokens) - static_cast<uint32_t>(attempt.base));
  order.mutable_stop_tokens()->Add(request.spec.stop_tokens.begin(), request.spec.stop_tokens.end());
  order.mutable_prompt()->Add(prompt.begin(), prompt.end());
  order.set_prompt_len_original(static_cast<uint32_t>(request.spec.prompt.size()));
  order.set_deadline_ms(milliseconds_left(request.deadline, now));
  return message;
}

}  // namespace runahead
