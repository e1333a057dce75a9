// CoordinatorCore: every decision of the coordinator. Who may join, which request starts when and on whom, which token
// goes to whom, what is stale, what is tried again, when it is over.
//   pure      each method is one event at time `now`; what shall be done is in take_actions(). No clock, no I/O;
//             randomness (stream tokens) comes from the Rng. The metrics sink is only written to.
//   request   waiting -> running (one attempt at a time) -> ended. A failed attempt is ended everywhere and the request
//             waits again; what its client has already got becomes part of the next attempt's prompt, so nothing is
//             said twice, and sampling by position makes the continuation the same.
//   fencing   is_current() is the one place where messages of older attempts and epochs die.
//   limits    base/limits.h: requests, attempts.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

#include "actors/coordinator/coordinator_options.h"
#include "actors/coordinator/coordinator_sink.h"
#include "actors/coordinator/decode_pace.h"
#include "actors/coordinator/prompt_scores.h"
#include "actors/coordinator/ttft_stages.h"
#include "actors/coordinator/worker_registry.h"
#include "actors/inference.h"
#include "actors/lane_order.h"
#include "actors/messages.h"
#include "base/rng.h"
#include "transport/control/control_plane.h"

namespace runahead {

using RequestId = uint64_t;

struct SendTo {
  PeerId peer = 0;
  proto::Envelope message;
};
struct DropPeer {
  PeerId peer = 0;
};
struct AdmitPeer {  // a member from now on: its place is its own
  PeerId peer = 0;
};
struct EmitEvent {  // FinishedEvent is the last one of a request
  RequestId request = 0;
  StreamEvent event;
};
struct EndStream {  // likewise
  RequestId request = 0;
  Error error;
};
using CoordinatorAction = std::variant<SendTo, DropPeer, AdmitPeer, EmitEvent, EndStream>;

class CoordinatorCore {
 public:
  CoordinatorCore(CoordinatorOptions options, Rng& rng, CoordinatorSink& metrics);

  // From the gateway.
  Result<RequestId> submit(InferenceRequest request, Time now);
  void finish(RequestId id, Time now);  // the client has all it wants
  void cancel(RequestId id, Time now);
  void first_chunk_written(RequestId id, Time now);
  // From the control plane.
  void on_connected(PeerId peer, Time now, std::string_view certified_role = {});  // as in ControlEvent::payload
  void on_message(PeerId peer, const proto::Envelope& message, Time now);
  void on_disconnected(PeerId peer, Time now);
  // Time passes: leases, heartbeats, deadlines, stalls.
  void on_tick(Time now);
  // This process did not run for so long: nobody was silent in that time, and what fails of it costs no attempt.
  void on_absence(Duration absence, Time now);

  // Plans and dispatches the request that has waited longest, if the workers have room for it; false if not. Called
  // until it is false after every other event; dispatched() follows when its messages are on their way.
  bool start_next(Time now);
  void dispatched(Time now);

  void begin_drain() { draining_ = true; }
  void end_all(Error why, Time now);
  size_t requests() const { return requests_.size(); }

  std::vector<CoordinatorAction> take_actions() { return std::exchange(actions_, {}); }
  SpeedMemory speeds() const { return registry_.speeds(); }
  ClusterView view(Time now) const;

 private:
  // What workers have of a prompt, in columns. The chain begins at `begin`: behind what rank 0 keeps, or behind what the decode
  // worker does, which then gives rank 0 the rest.
  struct KeptBeginning {
    WorkerPrefixes::Hit first, decode;
    int32_t begin = 0;
    bool is_given() const { return begin > first.columns; }
  };
  struct Attempt {
    AttemptId id;
    std::vector<WorkerId> ranks;  // [num_ranks]
    std::vector<TokenRange> chunks;
    WorkerId decode = 0;
    KeptBeginning kept;
    int32_t keeps_tokens = 0;  // that the last rank shall keep, beside those
    int32_t keeps_least = 0;  // WorkerPrefixes::Claim::least of them
    bool prompt_kept = false;  // the decode worker has said what it keeps of the prompt, if it shall
    size_t base = 0;  // tokens that the client had before
    std::vector<double> progress;  // [num_ranks], of 1
    std::vector<double> rank_seconds;  // [num_ranks], predicted compute
    std::vector<bool> rank_done;  // [num_ranks]
    bool has_left_pages() const { return rank_done.back() && prompt_kept; }  // where others can begin behind them
    int ranks_left = 0;  // that have not said RankDone
    std::optional<PromptScoreBook> scores;  // somebody asks for them
    std::optional<proto::FirstToken> first_token;  // it waits for the rest of them
    Time first_token_at{0};  // when it came
    double predicted_seconds = 0;  // until the first token
    std::vector<WorkerProfile> profiles;  // [num_ranks], what the plan took them for; measured ones as they have done
    bool is_alone = false;  // no other request was in work when it was dispatched
    Time dispatched_at{0};
    Time progress_at{0};  // when anything of it was last reported
  };
  struct Request {
    RequestId id = 0;
    InferenceRequest spec;
    Time deadline{0};
    std::vector<PageKey> keys;  // of the prompt's full pages; empty: it is not to be cached
    LaneOrder order;  // among all requests: who starts, and computes, first
    double service_seconds = 0;  // of its prefill, on all workers
    Time not_before{0};  // of the next attempt
    std::vector<TokenId> emitted;  // what the client has got; never taken back
    std::optional<FinishReason> complete;  // every token is there
    std::optional<SampledToken> stop_token;  // that ended it
    bool finished_early = false;  // by its client: the decode worker would go on
    bool scored = false;  // the client has the log-probabilities of its prompt
    uint32_t attempts = 0;
    uint32_t fruitless = 0;  // attempts in a row that brought nothing new
    double prefilled = 0;  // share of the prompt that the best attempt since the last token has computed
    std::optional<Time> no_room_since;  // waiting, and no worker is there that could ever take it
    std::optional<Attempt> attempt;  // none: waiting
    std::optional<AttemptId> awaited;  // that computes the beginning of its prompt for another request
    Time awaited_until{0};  // at most
    std::set<WorkerId> avoid;  // blamed by an earlier attempt
    bool left_suspect = false;  // an attempt was given up because a worker of it was silent
    TtftStamps stamps;
    proto::RankTiming last_rank;  // of the attempt that made the first token
    TtftReport report;
    std::optional<AttemptId> reported;  // that attempt
    bool written = false;
    Time last_token_at{0};
  };
  struct Assignment {
    std::vector<WorkerId> prefill;  // the ones to be taken first come first
    size_t prefill_max = 0;  // of those
    WorkerId decode = 0;
    KeptBeginning kept;  // rank 0 is the first one, if the chain begins behind it
  };
  struct Planned {
    Assignment assignment;
    Plan plan;
  };

  // coordinator_core.cc: membership and admission
  void on_hello(PeerId peer, const proto::Hello& hello, Time now);
  void refuse(PeerId peer, const Error& why);
  void drop_outvoted(Time now);
  void worker_lost(WorkerId id, const std::string& why, Time now);
  void sweep_silent(Time now);
  void leave_suspects(Time now);
  void end_late(Time now);
  void end_hopeless(Time now);
  void send_heartbeats(Time now);
  Result<void> check_request(const InferenceRequest& request) const;
  Result<void> check_room(const InferenceRequest& request, size_t generated = 0) const;
  double predicted_wait_seconds() const;
  static double prefill_left(const Request& request);
  double seconds_before(LaneOrder order) const;
  std::unexpected<Error> refuse_now(std::string why) const;
  Result<void> check_queue(int64_t tokens) const;
  Result<void> check_wait(LaneOrder order) const;
  double seconds_behind(int32_t columns, int32_t tokens) const;
  double prefill_seconds(const Request& request) const;
  std::vector<WorkerProfile> prefill_profiles() const;

  // coordinator_dispatch.cc: planning and dispatch
  std::optional<Assignment> choose_workers(const Request& request, Time now) const;
  Result<Planned> plan_best(const Request& request, const Assignment& assignment) const;
  LeaseShape rank_lease_of(const Plan& plan, size_t rank, int32_t shared) const;
  bool has_room(const Planned& planned) const;
  bool could_have_room(const InferenceRequest& request, int32_t prompt_len) const;
  bool may_begin_later(const Request& request) const;
  bool is_awaiting(const Request& request, Time now) const;
  bool await_beginning(Request& request, const Planned& planned, Time now) const;
  std::vector<Assignment> with_kept_beginnings(const Request& request, const Assignment& assignment) const;
  Result<PlanRequest> plan_request(const InferenceRequest& request, int32_t prompt_len) const;
  Result<Plan> plan_for(const Request& request, const Assignment& assignment, int32_t ranks = 0) const;  // 0: any
  double busy_seconds(WorkerId worker, LaneOrder before) const;
  void dispatch(Request& request, const Assignment& assignment, const Plan& plan, Time now);
  std::vector<PageKey> keys_of(const Request& request, const std::vector<TokenId>& prompt) const;
  void send_step(Request& request, size_t rank, proto::Envelope message, std::vector<PageKey> keys);
  int32_t least_columns(const Worker& worker, const WorkerPrefixes::Hit& hit, int32_t begin) const;
  void send_decode(Request& request, proto::Envelope message, std::vector<PageKey> prompt_keys);
  template <class Order>
  void claim_pages(Worker& worker, AttemptId attempt, WorkerPrefixes::Claim claim, Order& order);
  void begin_report(Request& request, const Plan& plan, Time now) const;
  std::string hop_transport(WorkerId from_id, WorkerId to_id) const;
  WorkerId receiver(const Attempt& attempt, size_t rank) const;
  bool may_give(WorkerId decode, WorkerId first) const;
  double giving_seconds(const Assignment& assignment) const;
  std::string transports_of(const Attempt& attempt) const;
  proto::Envelope chain_step(const Request& request, const std::vector<TokenId>& prompt, size_t rank,
                             const std::vector<StreamToken>& stream_tokens, Time now) const;
  proto::Envelope decode_order(const Request& request, const std::vector<TokenId>& prompt,
                               const std::vector<StreamToken>& stream_tokens, Time now) const;

  // coordinator_attempts.cc: what happens to an attempt
  void on_attempt_message(Worker& worker, const proto::Envelope& message, Time now);
  void book_pages(Worker& worker, const proto::Envelope& message);
  Request* is_current(const Worker& worker, const proto::Envelope& message);
  void on_rank_progress(Request& request, const proto::RankProgress& progress);
  void on_prompt_scores(Request& request, const Worker& worker, const proto::PromptScores& part, Time now);
  void hold_first_token(Request& request, const proto::FirstToken& first, Time now);
  void on_first_token(Request& request, const proto::FirstToken& first, Time now);
  void learn_from_rank(Attempt& attempt, const proto::RankDone& done);
  void count_rank(const Attempt& attempt, const proto::RankDone& done);
  void on_rank_done(Request& request, const proto::RankDone& done, Time now);
  void learn_stretch(const Request& request);
  void key_answer(const Request& request);
  void accept_tokens(Request& request, size_t first_index, std::vector<SampledToken> tokens, Time now);
  static bool may_say(const Worker& worker, const Attempt& attempt, const proto::Envelope& message);
  static WorkerId awaited(const Attempt& attempt);
  Duration stall_limit(const Worker& worker);
  void fail_stalled(Time now);
  void on_attempt_failed(Request& request, Worker& worker, Failure failure, Time now);
  void fail_attempt(Request& request, Failure failure, Time now);
  void count_attempt(Request& request, ErrorCode code, Time now);
  void retry_or_give_up(Request& request, const Failure& failure, Time now);
  void end_attempt(Request& request, ErrorCode reason);
  void finish_if_ready(Request& request, Time now);
  void end_with_error(Request& request, Error error, RequestOutcome outcome, Time now);
  void close_report(Request& request);
  void record_end(const Request& request, RequestOutcome outcome, ErrorCode code, Time now);

  Request* find(RequestId id);
  void forget(RequestId id);
  void send(WorkerId worker, proto::Envelope message);
  void gauges();

  CoordinatorOptions options_;
  Rng& rng_;
  CoordinatorSink& metrics_;
  WorkerRegistry registry_;
  struct Stranger {
    Time since{0};
    std::string certified_role;
  };
  std::map<PeerId, Stranger> unregistered_;  // connected, no Hello yet
  std::map<RequestId, Request> requests_;
  std::vector<RequestId> waiting_;  // served by their order
  int64_t waiting_tokens_ = 0;  // prompt tokens of those
  RequestId last_request_ = 0;
  RequestId last_started_ = 0;
  uint64_t last_prefix_ = 0;
  DecodePace pace_;
  ChainStretch stretch_;
  Time heartbeat_at_{0};
  Time forgiven_until_{0};  // workers that are lost until then were lost by this process's own absence
  bool draining_ = false;
  std::vector<CoordinatorAction> actions_;
};

}  // namespace runahead
