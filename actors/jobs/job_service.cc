#include "actors/jobs/job_service.h"

#include <algorithm>
#include <deque>
#include <map>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>

#include "actors/messages.h"
#include "base/async/gate.h"
#include "base/async/wake.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/sha256.h"

namespace runahead {
namespace {

constexpr Duration kRetryPause =
    std::chrono::milliseconds(500);                  // the cluster is full or has no workers: jobs can wait
constexpr Duration kLook = std::chrono::seconds(1);  // at least this often a waiting coroutine looks around
constexpr Duration kRepeatTimeout = std::chrono::seconds(30);  // for the commit of a submission with the same key

// One job in memory: accepted and not ended yet, or ended and still read by somebody.
struct Job {
  JobHead head;
  std::shared_ptr<const StoredRequest> request;  // while it runs
  std::shared_ptr<StoredResult> result;          // so far; null until it runs
  PrefillProgress prefill;
  bool cancelled = false;
  StopRule stops_after;                 // has seen all of result->tokens; empty: none
  bool stopped = false;                 // by it, at the last of result->tokens
  std::shared_ptr<TokenStream> stream;  // shared with nobody; the handle of InferenceService
  std::set<Wake*> readers;              // in their JobEvents

  bool ended() const { return has_ended(head.status); }
  void changed() {
    for (Wake* reader : readers) reader->notify();
  }
};

JobHead head_of(const Job& job) {
  JobHead head = job.head;
  if (job.result) head.completion_tokens = static_cast<int32_t>(job.result->tokens.size());
  return head;
}

JobView view_of(const Job& job) {
  JobView view{.head = head_of(job), .prefill_fraction = job.ended() ? 1 : job.prefill.fraction};
  if (job.request) view.client_json = job.request->client_json;
  if (job.ended()) view.result = job.result;
  return view;
}

JobView view_of(const JobRecord& record) {
  return {.head = record.head,
          .prefill_fraction = has_ended(record.head.status) ? 1.0 : 0.0,
          .client_json = record.client_json,
          .result = record.result};
}

bool may_see(const std::string& owner, const JobHead& head) { return head.owner.empty() || head.owner == owner; }

std::unexpected<Error> not_found(const std::string& id) {
  return fail(ErrorCode::kNotFound, "there is no job " + id, "id");
}

// Jobs of a store that was made before digests were kept have none.
Result<void> check_repeat(const JobHead& first, const std::string& request_digest) {
  if (first.request_digest.empty() || first.request_digest == request_digest) return {};
  return fail(ErrorCode::kKeyReused,
              "this Idempotency-Key was used for another request, job " + first.id +
                  "; send a new key, or the same request again",
              "Idempotency-Key");
}

// An owner and its idempotency key.
using OwnedKey = std::pair<std::string, std::string>;

// The submissions whose commit is under way. Those that repeat one wait for its turn to end.
struct Submitting {
  struct Turn {
    std::vector<std::shared_ptr<Wake>> waiting;
  };
  std::map<OwnedKey, Turn> turns;
  size_t committing = 0;
};

// One of them; over when it dies, however its coroutine ends.
class Claim {
 public:
  Claim(std::shared_ptr<Submitting> all, OwnedKey key) : all_(std::move(all)), key_(std::move(key)) {
    if (!key_.second.empty()) all_->turns[key_];
    ++all_->committing;
  }
  Claim(const Claim&) = delete;
  ~Claim() {
    --all_->committing;
    const auto turn = all_->turns.find(key_);
    if (turn == all_->turns.end()) return;
    for (const auto& wake : turn->second.waiting) wake->notify();
    all_->turns.erase(turn);
  }

 private:
  std::shared_ptr<Submitting> all_;
  OwnedKey key_;
};

class Events final : public JobEvents {
 public:
  Events(std::shared_ptr<Job> job, int32_t first_index, asio::any_io_executor executor, Clock& clock)
      : job_(std::move(job)),
        index_(static_cast<size_t>(std::max(first_index, 0))),
        clock_(clock),
        changed_(std::move(executor), clock) {
    job_->readers.insert(&changed_);
  }
  ~Events() override { job_->readers.erase(&changed_); }

  Task<StreamEvent> next(Deadline deadline) override {
    for (;;) {
      static const std::vector<SampledToken> kNone;
      const std::vector<SampledToken>& tokens = job_->result ? job_->result->tokens : kNone;
      if (tokens.size() > index_) {
        TokensEvent event{.first_index = static_cast<int32_t>(index_)};
        event.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(index_), tokens.end());
        index_ = tokens.size();
        co_return StreamEvent(std::move(event));
      }
      if (job_->ended()) {
        if (job_->result && job_->result->finished) co_return StreamEvent(*job_->result->finished);
        if (job_->head.error) co_return std::unexpected(*job_->head.error);
        co_return fail(ErrorCode::kCancelled, "the job was cancelled");
      }
      if (job_->prefill.fraction > fraction_) {
        fraction_ = job_->prefill.fraction;
        co_return StreamEvent(job_->prefill);
      }
      if (clock_.now() >= deadline.at) co_return fail(ErrorCode::kDeadlineExceeded, "no event came in time");
      co_await changed_.wait_until(deadline);
    }
  }

 private:
  std::shared_ptr<Job> job_;
  size_t index_;  // of the next token
  double fraction_ = 0;
  Clock& clock_;
  Wake changed_;
};

}  // namespace

class JobService::Impl {
 public:
  Impl(JobServiceEnv env, TestFaults faults)
      : env_(std::move(env)), faults_(faults), gate_(env_.executor, env_.clock) {}

  void resume(std::vector<JobHead> unfinished);
  Task<JobView> submit(JobSubmission submission);
  Task<JobView> find(std::string owner, std::string id);
  Task<std::vector<JobView>> list(JobQuery query);
  Task<JobView> cancel(std::string owner, std::string id);
  Task<JobView> keep(JobSubmission submission, EndedRun run);
  Task<void> remove(std::string owner, std::string id);
  Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index);
  asio::awaitable<void> stop();

 private:
  std::shared_ptr<Job> known(const std::string& owner, const std::string& id) const;
  Task<JobRecord> stored(std::string owner, std::string id);
  Task<std::optional<JobView>> first_with_key(OwnedKey key, std::string request_digest);
  JobHead new_head(JobSubmission& submission);
  void enqueue(std::shared_ptr<Job> job);
  void count();
  void start_waiting();
  asio::awaitable<void> run(std::shared_ptr<Job> job);
  Task<FinishedEvent> attempt(std::shared_ptr<Job> job);
  Task<FinishedEvent> generate(std::shared_ptr<Job> job);
  void take_tokens(Job& job, TokensEvent event);
  asio::awaitable<void> close(std::shared_ptr<Job> job, Result<FinishedEvent> outcome);
  asio::awaitable<void> accept_later(JobHead head, std::shared_ptr<const StoredRequest> request);

  JobServiceEnv env_;
  TestFaults faults_;
  std::map<std::string, std::shared_ptr<Job>> jobs_;  // that have not ended, by id
  std::map<OwnedKey, std::string> keys_;              // -> id, of those
  const std::shared_ptr<Submitting> submitting_ = std::make_shared<Submitting>();
  std::deque<std::shared_ptr<Job>> waiting_;
  int running_ = 0;
  std::map<JobStatus, int64_t> ended_;
  bool stopping_ = false;
  Gate gate_;  // running jobs
};

void JobService::Impl::resume(std::vector<JobHead> unfinished) {
  for (JobHead& head : unfinished) {
    head.status = JobStatus::kQueued;  // the tokens are made again, and are the same
    auto job = std::make_shared<Job>();
    job->head = std::move(head);
    enqueue(std::move(job));
  }
}

// The job that has the key already. Waits while another submission with it is under way.
Task<std::optional<JobView>> JobService::Impl::first_with_key(OwnedKey key, std::string request_digest) {
  const Deadline told_by = env_.clock.after(kRepeatTimeout);
  for (auto turn = submitting_->turns.find(key); turn != submitting_->turns.end();
       turn = submitting_->turns.find(key)) {
    auto wake = std::make_shared<Wake>(env_.executor, env_.clock);
    turn->second.waiting.push_back(wake);
    const bool told = co_await wake->wait_until(told_by);
    if (!told) co_return overloaded("a job with this idempotency key is being accepted; try again", 1);
  }
  if (const auto id = keys_.find(key); id != keys_.end()) {
    const Job& job = *jobs_.at(id->second);
    CO_TRY(check_repeat(job.head, request_digest));
    co_return view_of(job);
  }
  co_return std::optional<JobView>();
}

Task<JobView> JobService::Impl::submit(JobSubmission submission) {
  const OwnedKey key{submission.owner, submission.idempotency_key};
  const std::string digest = submission.request_digest;
  if (!key.second.empty()) {
    auto first = co_await first_with_key(key, digest);
    std::optional<JobView> view = CO_TRY(first);
    if (view) co_return std::move(*view);
  }
  const Claim claim(submitting_, key);  // nothing has been awaited since the key was free
  if (!key.second.empty()) {
    auto found = co_await env_.store.find_by_key(key.first, key.second);
    auto first = CO_TRY(found);
    if (first) {
      CO_TRY(check_repeat(*first, digest));
      auto record = co_await stored(key.first, first->id);
      co_return view_of(CO_TRY(record));
    }
  }
  if (stopping_) co_return fail(ErrorCode::kUnavailable, "the service is shutting down; try again");
  if (waiting_.size() + submitting_->committing > limits::kJobsWaitingMax)
    co_return overloaded("too many jobs are waiting; try again later", 10);
  auto job = std::make_shared<Job>();
  job->head = new_head(submission);
  submission.request.external_id = job->head.id;
  job->request = std::make_shared<const StoredRequest>(
      StoredRequest{std::move(submission.request), std::move(submission.client_json)});
  if (faults_.ack_before_commit) {
    gate_.spawn(accept_later(job->head, job->request));
  } else {
    auto committed = co_await env_.store.accept(job->head, job->request);
    CO_TRY(committed);
  }
  JobView view = view_of(*job);
  enqueue(job);
  view.head = head_of(*job);  // it may run already
  co_return view;
}

JobHead JobService::Impl::new_head(JobSubmission& submission) {
  std::string random;
  for (int i = 0; i < 2; ++i)
    for (uint64_t bits = env_.rng.next(), byte = 0; byte < 6; ++byte, bits >>= 8) random += static_cast<char>(bits);
  return {.id = submission.id.empty() ? "job-" + hex(random) : std::move(submission.id),
          .owner = std::move(submission.owner),
          .idempotency_key = std::move(submission.idempotency_key),
          .request_digest = std::move(submission.request_digest),
          .kind = std::move(submission.kind),
          .created_unix_ms = env_.unix_time_ms(),
          .prompt_tokens = static_cast<int32_t>(submission.request.prompt.size())};
}

asio::awaitable<void> JobService::Impl::accept_later(JobHead head, std::shared_ptr<const StoredRequest> request) {
  (void)co_await env_.store.accept(std::move(head), std::move(request));
}

void JobService::Impl::enqueue(std::shared_ptr<Job> job) {
  jobs_.emplace(job->head.id, job);
  if (!job->head.idempotency_key.empty())
    keys_.emplace(OwnedKey{job->head.owner, job->head.idempotency_key}, job->head.id);
  waiting_.push_back(job);
  start_waiting();
  if (job->head.status == JobStatus::kQueued) job->request.reset();  // it waits; the store has it
  count();
}

void JobService::Impl::count() {
  if (!env_.on_change) return;
  const auto waiting = static_cast<int64_t>(waiting_.size());
  env_.on_change({.waiting = waiting, .running = std::ssize(jobs_) - waiting, .ended = ended_});
}

void JobService::Impl::start_waiting() {
  while (!waiting_.empty() && running_ < limits::kJobsRunningMax && !stopping_) {
    std::shared_ptr<Job> job = std::move(waiting_.front());
    waiting_.pop_front();
    ++running_;
    job->head.status = JobStatus::kRunning;
    gate_.spawn(run(std::move(job)));  // may start, and even end, at once
  }
}

asio::awaitable<void> JobService::Impl::run(std::shared_ptr<Job> job) {
  Result<FinishedEvent> outcome = fail(ErrorCode::kCancelled, "the job was cancelled");
  while (!job->cancelled && !stopping_) {
    outcome = co_await attempt(job);
    job->stream.reset();
    const bool can_wait =
        !outcome && (outcome.error().code == ErrorCode::kOverloaded || outcome.error().code == ErrorCode::kUnavailable);
    if (!can_wait) break;
    co_await env_.clock.sleep_for(kRetryPause);
  }
  if (!stopping_ || outcome) co_await close(job, std::move(outcome));  // a stopped job is resumed at the next start
  job->request.reset();
  --running_;
  start_waiting();
  count();
}

// A job that memory does not suffice for fails alone.
Task<FinishedEvent> JobService::Impl::attempt(std::shared_ptr<Job> job) {
  Result<FinishedEvent> outcome = fail(ErrorCode::kTooLarge, "there was not enough memory to run this job");
  try {
    outcome = co_await generate(job);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  co_return outcome;
}

// One run from the first token on. A second run makes the same tokens; those that are there already are not added
// again.
Task<FinishedEvent> JobService::Impl::generate(std::shared_ptr<Job> job) {
  if (!job->request) {
    auto loaded = co_await env_.store.request(job->head.id);
    job->request = CO_TRY(loaded);
    if (!job->request) co_return fail(ErrorCode::kCorrupt, "the job's request is not in the store any more");
    if (stopping_ || job->cancelled) co_return fail(ErrorCode::kCancelled, "the job was cancelled");
  }
  if (!job->result) {
    job->result = std::make_shared<StoredResult>();
    if (env_.stop_rule) job->stops_after = env_.stop_rule(job->request->client_json);
  }
  InferenceRequest request = job->request->request;
  if (request.deadline <= Duration::zero()) request.deadline = env_.deadline;
  job->stream = CO_TRY(env_.inference.submit(std::move(request)));
  for (;;) {
    Result<StreamEvent> event = co_await job->stream->next(env_.clock.after(kLook));
    if (!event) {
      if (event.error().code == ErrorCode::kDeadlineExceeded && !job->stream->ended()) continue;
      co_return std::unexpected(event.error());
    }
    if (auto* finished = std::get_if<FinishedEvent>(&*event)) co_return std::move(*finished);
    if (auto* progress = std::get_if<PrefillProgress>(&*event)) job->prefill = std::move(*progress);
    if (auto* tokens = std::get_if<TokensEvent>(&*event)) {
      if (tokens->first_index == 0) job->stream->first_chunk_written();
      job->prefill.fraction = 1;
      std::ranges::fill(job->prefill.ranks, 1.0);
      take_tokens(*job, std::move(*tokens));
      if (job->stopped) job->stream->finish();
    }
    job->changed();
  }
}

void JobService::Impl::take_tokens(Job& job, TokensEvent event) {
  std::vector<SampledToken>& all = job.result->tokens;
  const size_t known = all.size() - std::min(all.size(), static_cast<size_t>(event.first_index));
  for (size_t i = known; i < event.tokens.size() && !job.stopped; ++i) {
    all.push_back(std::move(event.tokens[i]));
    job.stopped = job.stops_after && job.stops_after(all.back());
  }
}

asio::awaitable<void> JobService::Impl::close(std::shared_ptr<Job> job, Result<FinishedEvent> outcome) {
  if (!job->result) job->result = std::make_shared<StoredResult>();
  JobHead head = head_of(*job);
  head.status = JobStatus::kSucceeded;
  head.ended_unix_ms = env_.unix_time_ms();
  if (outcome) {
    if (job->stopped) {
      outcome->reason = FinishReason::kStop;
      outcome->generated = head.completion_tokens;
    }
    job->result->finished = std::move(*outcome);
  } else if (job->cancelled) {
    head.status = JobStatus::kCancelled;
  } else {
    head.status = JobStatus::kFailed;
    head.error = outcome.error();
  }
  // The end is told when it is durable. Until it can be written the job stays here; after a stop it runs again.
  Result<void> committed = co_await env_.store.end(head, job->result);
  while (!committed && committed.error().code != ErrorCode::kCorrupt && !stopping_) {
    log::error("the end of job {} could not be stored: {}; trying again", head.id, committed.error().message);
    co_await env_.clock.sleep_for(kRetryPause);
    committed = co_await env_.store.end(head, job->result);
  }
  job->head = std::move(head);
  jobs_.erase(job->head.id);
  keys_.erase({job->head.owner, job->head.idempotency_key});
  ++ended_[job->head.status];
  count();
  if (env_.on_end && job->request) env_.on_end(view_of(*job));
  job->changed();
}

// One that has not ended, if this owner may see it.
std::shared_ptr<Job> JobService::Impl::known(const std::string& owner, const std::string& id) const {
  const auto found = jobs_.find(id);
  return found != jobs_.end() && may_see(owner, found->second->head) ? found->second : nullptr;
}

Task<JobRecord> JobService::Impl::stored(std::string owner, std::string id) {
  auto found = co_await env_.store.find(id);
  auto record = CO_TRY(found);
  if (!record || !may_see(owner, record->head)) co_return not_found(id);
  co_return *record;
}

Task<JobView> JobService::Impl::find(std::string owner, std::string id) {
  const std::shared_ptr<Job> job = known(owner, id);
  if (job && job->request) co_return view_of(*job);
  auto record = co_await stored(owner, id);
  if (!job) co_return view_of(CO_TRY(record));
  JobView view = view_of(*job);  // of now: it may have begun or ended meanwhile
  if (record) view.client_json = record->client_json;
  co_return view;
}

Task<std::vector<JobView>> JobService::Impl::list(JobQuery query) {
  auto found = co_await env_.store.list(std::move(query));
  std::vector<JobHead> heads = CO_TRY(found);
  std::vector<JobView> views;
  views.reserve(heads.size());
  for (JobHead& head : heads) {
    const auto job = jobs_.find(head.id);
    if (job != jobs_.end()) {
      views.push_back({.head = head_of(*job->second), .prefill_fraction = job->second->prefill.fraction});
    } else {
      const double fraction = has_ended(head.status) ? 1.0 : 0.0;
      views.push_back({.head = std::move(head), .prefill_fraction = fraction});
    }
  }
  co_return views;
}

Task<JobView> JobService::Impl::cancel(std::string owner, std::string id) {
  const std::shared_ptr<Job> job = known(owner, id);
  if (job) {
    job->cancelled = true;
    if (job->stream) job->stream->cancel();
    if (std::erase(waiting_, job) > 0) {
      ++running_;
      gate_.spawn(run(job));  // it sees that it is cancelled, and closes the row
    }
  }
  co_return co_await find(std::move(owner), std::move(id));
}

Task<JobView> JobService::Impl::keep(JobSubmission submission, EndedRun run) {
  if (stopping_) co_return fail(ErrorCode::kUnavailable, "the service is shutting down; try again");
  JobHead head = new_head(submission);
  head.created_unix_ms = run.created_unix_ms;
  head.ended_unix_ms = env_.unix_time_ms();
  head.status = run.error ? JobStatus::kFailed : JobStatus::kSucceeded;
  head.completion_tokens = static_cast<int32_t>(run.result.tokens.size());
  head.error = std::move(run.error);
  submission.request.external_id = head.id;
  const auto request = std::make_shared<const StoredRequest>(
      StoredRequest{std::move(submission.request), std::move(submission.client_json)});
  const auto result = std::make_shared<const StoredResult>(std::move(run.result));
  auto committed = co_await env_.store.keep(head, request, result);
  CO_TRY(committed);
  co_return JobView{
      .head = std::move(head), .prefill_fraction = 1, .client_json = request->client_json, .result = result};
}

Task<void> JobService::Impl::remove(std::string owner, std::string id) {
  if (known(owner, id)) co_return fail(ErrorCode::kInvalidArgument, "job " + id + " has not ended; cancel it", "id");
  auto found = co_await stored(std::move(owner), id);
  CO_TRY(found);
  co_return co_await env_.store.remove(std::move(id));
}

Task<std::shared_ptr<JobEvents>> JobService::Impl::subscribe(std::string owner, std::string id, int32_t first_index) {
  std::shared_ptr<Job> job = known(owner, id);
  if (!job) {
    auto found = co_await stored(std::move(owner), std::move(id));
    JobRecord record = CO_TRY(found);
    job = std::make_shared<Job>();
    job->head = std::move(record.head);
    if (record.result) job->result = std::make_shared<StoredResult>(*record.result);
  }
  co_return std::make_shared<Events>(std::move(job), first_index, env_.executor, env_.clock);
}

asio::awaitable<void> JobService::Impl::stop() {
  stopping_ = true;
  for (auto& [id, job] : jobs_)
    if (job->stream) job->stream->cancel();
  co_await gate_.close();
}

JobService::JobService(JobServiceEnv env, TestFaults faults) : impl_(std::make_shared<Impl>(std::move(env), faults)) {}
JobService::~JobService() = default;
void JobService::resume(std::vector<JobHead> unfinished) { impl_->resume(std::move(unfinished)); }
Task<JobView> JobService::submit(JobSubmission submission) { return impl_->submit(std::move(submission)); }
Task<JobView> JobService::find(std::string owner, std::string id) {
  return impl_->find(std::move(owner), std::move(id));
}
Task<std::vector<JobView>> JobService::list(JobQuery query) { return impl_->list(std::move(query)); }
Task<JobView> JobService::cancel(std::string owner, std::string id) {
  return impl_->cancel(std::move(owner), std::move(id));
}
Task<JobView> JobService::keep(JobSubmission submission, EndedRun run) {
  return impl_->keep(std::move(submission), std::move(run));
}
Task<void> JobService::remove(std::string owner, std::string id) {
  return impl_->remove(std::move(owner), std::move(id));
}
Task<std::shared_ptr<JobEvents>> JobService::subscribe(std::string owner, std::string id, int32_t first_index) {
  return impl_->subscribe(std::move(owner), std::move(id), first_index);
}
asio::awaitable<void> JobService::stop() { return impl_->stop(); }

}  // namespace runahead
