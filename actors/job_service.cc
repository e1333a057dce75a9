#include "actors/job_service.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "actors/gate.h"
#include "actors/job_json.h"
#include "actors/messages.h"
#include "actors/wake.h"
#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

constexpr Duration kRetryPause =
    std::chrono::milliseconds(500);                  // the cluster is full or has no workers: jobs can wait
constexpr Duration kLook = std::chrono::seconds(1);  // at least this often a waiting coroutine looks around

// One job in memory: accepted and not ended yet, or ended and still read by somebody.
struct Job {
  JobRow row;
  StoredRequest stored;
  StoredResult result;  // so far
  double prefill_fraction = 0;
  bool cancelled = false;
  StopRule stops_after;                 // has seen all of result.tokens; empty: none
  bool stopped = false;                 // by it, at the last of result.tokens
  std::shared_ptr<TokenStream> stream;  // shared with nobody; the handle of InferenceService
  std::set<Wake*> readers;              // in their JobEvents

  bool ended() const { return row.status != JobStatus::kQueued && row.status != JobStatus::kRunning; }
  void changed() {
    for (Wake* reader : readers) reader->notify();
  }
};

JobView view_of(const Job& job) {
  return {.id = job.row.id,
          .status = job.row.status,
          .client_json = job.stored.client_json,
          .created_unix_ms = job.row.created_unix_ms,
          .ended_unix_ms = job.row.ended_unix_ms,
          .prompt_tokens = static_cast<int32_t>(job.stored.request.prompt.size()),
          .tokens = job.result.tokens,
          .prefill_fraction = job.ended() ? 1 : job.prefill_fraction,
          .finished = job.result.finished,
          .error = job.result.error};
}

Result<std::shared_ptr<Job>> job_of(JobRow row) {
  auto job = std::make_shared<Job>();
  job->stored = TRY(request_from_json(row.request_json));
  if (!row.result_json.empty()) job->result = TRY(result_from_json(row.result_json));
  job->row = std::move(row);
  return job;
}

std::unexpected<Error> not_found(const std::string& id) {
  return fail(ErrorCode::kNotFound, "there is no job " + id, "id");
}

class Events final : public JobEvents {
 public:
  Events(std::shared_ptr<Job> job, int32_t first_index, asio::any_io_executor executor, Clock& clock)
      : job_(std::move(job)), index_(static_cast<size_t>(std::max(first_index, 0))), clock_(clock),
        changed_(std::move(executor), clock) {
    job_->readers.insert(&changed_);
  }
  ~Events() override { job_->readers.erase(&changed_); }

  Task<StreamEvent> next(Deadline deadline) override {
    for (;;) {
      const std::vector<SampledToken>& tokens = job_->result.tokens;
      if (tokens.size() > index_) {
        TokensEvent event{.first_index = static_cast<int32_t>(index_)};
        event.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(index_), tokens.end());
        index_ = tokens.size();
        co_return StreamEvent(std::move(event));
      }
      if (job_->ended()) {
        if (job_->result.finished) co_return StreamEvent(*job_->result.finished);
        if (job_->result.error) co_return std::unexpected(*job_->result.error);
        co_return fail(ErrorCode::kCancelled, "the job was cancelled");
      }
      if (job_->prefill_fraction > fraction_) {
        fraction_ = job_->prefill_fraction;
        co_return StreamEvent(PrefillProgress{.fraction = fraction_});
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
      : env_(std::move(env)),
        faults_(faults),
        stop_wake_(env_.executor, env_.clock),
        gate_(env_.executor, env_.clock) {}

  void resume(std::vector<JobRow> unfinished);
  Task<JobView> submit(JobSubmission submission);
  Task<JobView> find(std::string id);
  Task<std::vector<JobView>> list(int32_t limit);
  Task<JobView> cancel(std::string id);
  Task<std::shared_ptr<JobEvents>> subscribe(std::string id, int32_t first_index);
  asio::awaitable<void> stop();

 private:
  Task<std::shared_ptr<Job>> lookup(std::string id);
  std::shared_ptr<Job> accept(JobSubmission submission);
  void enqueue(std::shared_ptr<Job> job);
  void start_waiting();
  asio::awaitable<void> run(std::shared_ptr<Job> job);
  Task<FinishedEvent> generate(std::shared_ptr<Job> job);
  void take_tokens(Job& job, TokensEvent event);
  asio::awaitable<void> close(std::shared_ptr<Job> job, Result<FinishedEvent> outcome);
  asio::awaitable<void> commit_later(JobRow row);

  JobServiceEnv env_;
  TestFaults faults_;
  std::map<std::string, std::shared_ptr<Job>> jobs_;  // that have not ended, by id
  std::map<std::string, std::string> keys_;           // idempotency key -> id, of those
  std::set<std::string> submitting_;                  // keys whose first commit is under way
  std::deque<std::shared_ptr<Job>> waiting_;
  int running_ = 0;
  bool stopping_ = false;
  Wake stop_wake_;
  Gate gate_;  // running jobs
};

void JobService::Impl::resume(std::vector<JobRow> unfinished) {
  for (JobRow& row : unfinished) {
    const std::string id = row.id;
    Result<std::shared_ptr<Job>> job = job_of(std::move(row));
    if (!job) {
      log::error("job {} is left alone: {}", id, job.error().message);
      continue;
    }
    (*job)->row.status = JobStatus::kQueued;
    (*job)->result = {};  // the tokens are made again, and are the same
    enqueue(std::move(*job));
  }
}

Task<JobView> JobService::Impl::submit(JobSubmission submission) {
  const std::string key = submission.idempotency_key;
  if (!key.empty()) {
    if (const auto known = keys_.find(key); known != keys_.end()) co_return view_of(*jobs_.at(known->second));
    if (!submitting_.insert(key).second)
      co_return fail(ErrorCode::kOverloaded, "a job with this idempotency key is being accepted; try again", "1");
    auto found = co_await env_.store.find_by_key(key);
    submitting_.erase(key);
    auto row = CO_TRY(found);
    if (row) {
      auto job = job_of(*row);
      co_return view_of(*CO_TRY(job));
    }
  }
  if (stopping_) co_return fail(ErrorCode::kUnavailable, "the service is shutting down; try again");
  if (waiting_.size() >= limits::kJobsWaitingMax)
    co_return fail(ErrorCode::kOverloaded, "too many jobs are waiting; try again later", "10");
  std::shared_ptr<Job> job = accept(std::move(submission));
  if (faults_.ack_before_commit) {
    gate_.spawn(commit_later(job->row));
  } else {
    if (!key.empty()) submitting_.insert(key);
    auto committed = co_await env_.store.commit(job->row);
    submitting_.erase(key);
    CO_TRY(committed);
  }
  enqueue(job);
  co_return view_of(*job);
}

std::shared_ptr<Job> JobService::Impl::accept(JobSubmission submission) {
  auto job = std::make_shared<Job>();
  std::string random;
  for (int i = 0; i < 2; ++i)
    for (uint64_t bits = env_.rng.next(), byte = 0; byte < 6; ++byte, bits >>= 8) random += static_cast<char>(bits);
  job->row.id = "job-" + hex(random);
  job->row.idempotency_key = std::move(submission.idempotency_key);
  job->row.created_unix_ms = env_.unix_time_ms();
  job->stored = {std::move(submission.request), std::move(submission.client_json)};
  job->stored.request.external_id = job->row.id;
  job->row.request_json = to_json(job->stored);
  return job;
}

asio::awaitable<void> JobService::Impl::commit_later(JobRow row) { (void)co_await env_.store.commit(std::move(row)); }

void JobService::Impl::enqueue(std::shared_ptr<Job> job) {
  if (env_.stop_rule) job->stops_after = env_.stop_rule(job->stored.client_json);
  jobs_.emplace(job->row.id, job);
  if (!job->row.idempotency_key.empty()) keys_.emplace(job->row.idempotency_key, job->row.id);
  waiting_.push_back(std::move(job));
  start_waiting();
}

void JobService::Impl::start_waiting() {
  while (!waiting_.empty() && running_ < limits::kJobsRunningMax && !stopping_) {
    std::shared_ptr<Job> job = std::move(waiting_.front());
    waiting_.pop_front();
    ++running_;
    gate_.spawn(run(std::move(job)));  // may start, and even end, at once
  }
}

asio::awaitable<void> JobService::Impl::run(std::shared_ptr<Job> job) {
  job->row.status = JobStatus::kRunning;
  Result<FinishedEvent> outcome = fail(ErrorCode::kCancelled, "the job was cancelled");
  while (!job->cancelled && !stopping_) {
    outcome = co_await generate(job);
    job->stream.reset();
    const bool can_wait = !outcome && (outcome.error().code == ErrorCode::kOverloaded ||
                                       outcome.error().code == ErrorCode::kUnavailable);
    if (!can_wait) break;
    co_await env_.clock.sleep_for(kRetryPause);
  }
  if (!stopping_ || outcome) co_await close(job, std::move(outcome));  // a stopped job is resumed at the next start
  --running_;
  start_waiting();
}

// One run from the first token on. A second run makes the same tokens; those that are there already are not added
// again.
Task<FinishedEvent> JobService::Impl::generate(std::shared_ptr<Job> job) {
  job->stream = CO_TRY(env_.inference.submit(job->stored.request));
  for (;;) {
    Result<StreamEvent> event = co_await job->stream->next(env_.clock.after(kLook));
    if (!event) {
      if (event.error().code == ErrorCode::kDeadlineExceeded && !job->stream->ended()) continue;
      co_return std::unexpected(event.error());
    }
    if (auto* finished = std::get_if<FinishedEvent>(&*event)) co_return std::move(*finished);
    if (auto* progress = std::get_if<PrefillProgress>(&*event)) job->prefill_fraction = progress->fraction;
    if (auto* tokens = std::get_if<TokensEvent>(&*event)) {
      if (tokens->first_index == 0) job->stream->first_chunk_written();
      take_tokens(*job, std::move(*tokens));
      if (job->stopped) job->stream->finish();
    }
    job->changed();
  }
}

void JobService::Impl::take_tokens(Job& job, TokensEvent event) {
  std::vector<SampledToken>& all = job.result.tokens;
  const size_t known = all.size() - std::min(all.size(), static_cast<size_t>(event.first_index));
  for (size_t i = known; i < event.tokens.size() && !job.stopped; ++i) {
    all.push_back(std::move(event.tokens[i]));
    job.stopped = job.stops_after && job.stops_after(all.back());
  }
}

asio::awaitable<void> JobService::Impl::close(std::shared_ptr<Job> job, Result<FinishedEvent> outcome) {
  JobStatus status = JobStatus::kSucceeded;
  if (outcome) {
    if (job->stopped) {
      outcome->reason = FinishReason::kStop;
      outcome->generated = static_cast<int32_t>(job->result.tokens.size());
    }
    job->result.finished = std::move(*outcome);
  } else if (job->cancelled) {
    status = JobStatus::kCancelled;
  } else {
    status = JobStatus::kFailed;
    job->result.error = outcome.error();
  }
  job->row.ended_unix_ms = env_.unix_time_ms();
  JobRow row = job->row;
  row.status = status;
  row.result_json = to_json(job->result);
  // The end is told when it is durable. Until it can be written the job stays here; after a stop it runs again.
  Result<void> committed = co_await env_.store.commit(row);
  while (!committed && !stopping_) {
    log::error("the end of job {} could not be stored: {}; trying again", row.id, committed.error().message);
    co_await env_.clock.sleep_for(kRetryPause);
    committed = co_await env_.store.commit(row);
  }
  job->row = std::move(row);
  jobs_.erase(job->row.id);
  keys_.erase(job->row.idempotency_key);
  job->changed();
}

Task<std::shared_ptr<Job>> JobService::Impl::lookup(std::string id) {
  if (const auto known = jobs_.find(id); known != jobs_.end()) co_return known->second;
  auto found = co_await env_.store.find(id);
  auto row = CO_TRY(found);
  if (!row) co_return not_found(id);
  co_return job_of(*row);
}

Task<JobView> JobService::Impl::find(std::string id) {
  auto found = co_await lookup(std::move(id));
  co_return view_of(*CO_TRY(found));
}

Task<std::vector<JobView>> JobService::Impl::list(int32_t limit) {
  auto found = co_await env_.store.list(limit);
  std::vector<JobRow> rows = CO_TRY(found);
  std::vector<JobView> views;
  for (JobRow& row : rows) {
    if (const auto known = jobs_.find(row.id); known != jobs_.end()) views.push_back(view_of(*known->second));
    else if (const Result<std::shared_ptr<Job>> job = job_of(std::move(row))) views.push_back(view_of(**job));
  }
  co_return views;
}

Task<JobView> JobService::Impl::cancel(std::string id) {
  const auto known = jobs_.find(id);
  if (known == jobs_.end()) co_return co_await find(std::move(id));
  std::shared_ptr<Job> job = known->second;
  job->cancelled = true;
  if (job->stream) job->stream->cancel();
  if (std::erase(waiting_, job) > 0) {
    ++running_;
    gate_.spawn(run(job));  // it sees that it is cancelled, and closes the row
  }
  co_return view_of(*job);
}

Task<std::shared_ptr<JobEvents>> JobService::Impl::subscribe(std::string id, int32_t first_index) {
  auto found = co_await lookup(std::move(id));
  std::shared_ptr<Job> job = CO_TRY(found);
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
void JobService::resume(std::vector<JobRow> unfinished) { impl_->resume(std::move(unfinished)); }
Task<JobView> JobService::submit(JobSubmission submission) { return impl_->submit(std::move(submission)); }
Task<JobView> JobService::find(std::string id) { return impl_->find(std::move(id)); }
Task<std::vector<JobView>> JobService::list(int32_t limit) { return impl_->list(limit); }
Task<JobView> JobService::cancel(std::string id) { return impl_->cancel(std::move(id)); }
Task<std::shared_ptr<JobEvents>> JobService::subscribe(std::string id, int32_t first_index) {
  return impl_->subscribe(std::move(id), first_index);
}
asio::awaitable<void> JobService::stop() { return impl_->stop(); }

}  // namespace runahead
