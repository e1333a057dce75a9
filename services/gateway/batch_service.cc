#include "services/gateway/batch_service.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "base/async/gate.h"
#include "base/async/wake.h"
#include "base/json_text.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/wall_clock.h"
#include "services/gateway/job_text.h"
#include "services/gateway/jobs_routes.h"
#include "services/http/api_error.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPause = 250ms;  // between two looks at what may have changed: room, workers, an end by time
constexpr auto kRetryPause = 1s;  // of a disk that is full
constexpr int64_t kWindowMs = int64_t{24} * 3600 * 1000;
constexpr size_t kPieceBytes = 1 << 20;  // of an input file, read and checked at once

struct Batch {
  BatchRecord record;
  std::vector<BatchLine> lines;  // known while it runs
  int in_work = 0;  // lines
  bool has_expired_lines = false;
};

bool may_see(const std::string& owner, const BatchRecord& record) {
  return record.owner.empty() || record.owner == owner;
}

bool can_wait(const Error& error) {
  return error.code == ErrorCode::kOverloaded || error.code == ErrorCode::kUnavailable;
}

}  // namespace

class BatchService::Impl {
 public:
  Impl(const GatewayContext& context, JobsApi& jobs, FileStore& files)
      : context_(context),
        jobs_(jobs),
        files_(files),
        gate_(context.executor, context.clock),
        changed_(context.executor, context.clock) {}

  void resume();
  Task<BatchRecord> create(std::string owner, BatchRequest request);
  const BatchRecord* find(const std::string& owner, const std::string& id) const;
  std::vector<const BatchRecord*> of(const std::string& owner) const;
  Task<BatchRecord> cancel(std::string owner, std::string id);
  bool reads(const std::string& file_id) const;
  asio::awaitable<void> stop();

 private:
  using Shared = std::shared_ptr<Batch>;  // of the map, and of the coroutines that work on it

  asio::awaitable<void> run(Shared batch);
  Task<void> work(Shared batch);
  Task<bool> validate(Shared batch);
  Task<void> begin(Shared batch);
  Task<void> run_lines(Shared batch);
  Task<std::unordered_set<int64_t>> done_lines(Shared batch);
  Task<void> finish(Shared batch);
  Task<void> finish_part(BatchRecord record, std::string id, std::string suffix);
  asio::awaitable<void> wait_for_place(Shared batch);
  asio::awaitable<void> run_line(Shared batch, BatchLine line);
  Task<void> answer_line(Shared batch, BatchLine line);
  Task<BatchLineRequest> read_line(Shared batch, BatchLine line);
  Task<JobView> run_job(Shared batch, int64_t number, std::string body);
  Task<JobSubmission> submission(Shared batch, int64_t number, std::string body);
  Task<JobView> ended_job(Shared batch, JobView job);
  Task<void> write_answer(Shared batch, int64_t number, std::string custom_id, JobView job);
  Task<void> write_error(Shared batch, int64_t number, std::string custom_id, Error error, std::string job_id);
  Task<void> write(Shared batch, bool completed, std::string line);
  Task<void> put(Shared batch);
  Task<void> enter(Shared batch, BatchStatus status);
  static bool is_over(const Batch& batch);
  int64_t open() const;
  void count();  // for the metrics
  void forget_oldest();
  asio::awaitable<void> forget(std::string id);
  asio::awaitable<void> clean_up(std::set<std::string> kept);

  const GatewayContext& context_;
  JobsApi& jobs_;
  FileStore& files_;
  std::map<std::string, Shared> batches_;
  int in_work_ = 0;  // lines
  bool stopping_ = false;
  Gate gate_;
  Wake changed_;  // a line has ended, or everything ends
};

void BatchService::Impl::resume() {
  std::set<std::string> kept;
  for (auto& [id, text] : files_.take_records()) {
    Result<BatchRecord> record = parse_stored_batch(id, text);
    if (!record) {
      log::error("files: {}", record.error().message);
      continue;
    }
    auto batch = std::make_shared<Batch>();
    batch->record = std::move(*record);
    batches_.emplace(id, batch);
    if (has_ended(batch->record.status)) continue;
    kept.insert({batch->record.output_file_id, batch->record.error_file_id});
    gate_.spawn(run(std::move(batch)));
  }
  gate_.spawn(clean_up(std::move(kept)));
  count();
}

int64_t BatchService::Impl::open() const {
  return std::ranges::count_if(batches_, [](const auto& at) { return !has_ended(at.second->record.status); });
}

void BatchService::Impl::count() { context_.metrics.batches_open(open()); }

Task<BatchRecord> BatchService::Impl::create(std::string owner, BatchRequest request) {
  if (stopping_) co_return fail(ErrorCode::kUnavailable, "the service is shutting down; try again");
  const FileHead* file = files_.find(owner, request.input_file_id);
  if (file == nullptr)
    co_return fail(ErrorCode::kNotFound, "there is no file " + printable_line(request.input_file_id, 64),
                   "input_file_id");
  if (file->purpose != "batch")
    co_return fail(ErrorCode::kInvalidArgument, "this file was not uploaded with purpose=batch", "input_file_id");
  if (std::cmp_greater_equal(open(), kBatchesOpenMax))
    co_return overloaded("too many batches have not ended; wait for some, or cancel them", 60);
  auto batch = std::make_shared<Batch>();
  BatchRecord& record = batch->record;
  record.id = context_.new_id("batch_");
  record.owner = std::move(owner);
  record.endpoint = request.endpoint;
  record.input_file_id = std::move(request.input_file_id);
  record.metadata = std::move(request.metadata);
  record.enter(BatchStatus::kValidating, unix_time_ms());
  record.expires_unix_ms = record.created_unix_ms() + kWindowMs;
  batches_.emplace(record.id, batch);  // counts from now on
  auto committed = co_await files_.put_record(record.id, stored(record));
  if (!committed) batches_.erase(record.id);
  CO_TRY(committed);
  count();
  forget_oldest();
  if (!stopping_) gate_.spawn(run(batch));
  co_return batch->record;
}

const BatchRecord* BatchService::Impl::find(const std::string& owner, const std::string& id) const {
  const auto found = batches_.find(id);
  return found != batches_.end() && may_see(owner, found->second->record) ? &found->second->record : nullptr;
}

std::vector<const BatchRecord*> BatchService::Impl::of(const std::string& owner) const {
  std::vector<const BatchRecord*> records;
  for (const auto& [id, batch] : batches_)
    if (may_see(owner, batch->record)) records.push_back(&batch->record);
  std::ranges::sort(records, [](const BatchRecord* a, const BatchRecord* b) {
    return std::pair(a->created_unix_ms(), std::string_view(a->id)) >
           std::pair(b->created_unix_ms(), std::string_view(b->id));
  });
  return records;
}

bool BatchService::Impl::reads(const std::string& file_id) const {
  return std::ranges::any_of(batches_, [&](const auto& at) {
    return at.second->record.input_file_id == file_id && !has_ended(at.second->record.status);
  });
}

void BatchService::Impl::forget_oldest() {
  std::vector<const BatchRecord*> ended;
  for (const auto& [id, batch] : batches_)
    if (has_ended(batch->record.status)) ended.push_back(&batch->record);
  if (ended.size() <= kBatchesKeptMax) return;
  const auto oldest = *std::ranges::min_element(ended, {}, &BatchRecord::created_unix_ms);
  gate_.spawn(forget(oldest->id));
}

asio::awaitable<void> BatchService::Impl::clean_up(std::set<std::string> kept) {
  (void)co_await files_.remove_orphans(std::move(kept));
}

asio::awaitable<void> BatchService::Impl::forget(std::string id) {
  batches_.erase(id);
  (void)co_await files_.remove_record(std::move(id));
}

Task<BatchRecord> BatchService::Impl::cancel(std::string owner, std::string id) {
  const auto found = batches_.find(id);
  if (found == batches_.end() || !may_see(owner, found->second->record))
    co_return fail(ErrorCode::kNotFound, "there is no batch " + printable_line(id, 64), "batch_id");
  const Shared batch = found->second;
  const BatchStatus status = batch->record.status;
  if (status == BatchStatus::kCancelling || status == BatchStatus::kCancelled) co_return batch->record;
  if (has_ended(status) || batch->record.ending != BatchStatus::kValidating)
    co_return fail(ErrorCode::kIncompatible,
                   "this batch is " + std::string(name(status)) + ": nothing is left to cancel");
  batch->record.enter(BatchStatus::kCancelling, unix_time_ms());
  changed_.notify();
  auto committed = co_await files_.put_record(batch->record.id, stored(batch->record));
  CO_TRY(committed);
  co_return batch->record;
}

asio::awaitable<void> BatchService::Impl::stop() {
  stopping_ = true;
  changed_.notify();
  co_await gate_.close();
}

// Cancelled, or its window has closed: no line of it goes on.
bool BatchService::Impl::is_over(const Batch& batch) {
  return batch.record.is_cancelled() || unix_time_ms() >= batch.record.expires_unix_ms;
}

Task<void> BatchService::Impl::put(Shared batch) {
  for (;;) {
    auto committed = co_await files_.put_record(batch->record.id, stored(batch->record));
    if (committed || stopping_) co_return committed;
    log::error("batch {} cannot be stored: {}; trying again", batch->record.id, committed.error().message);
    co_await context_.clock.sleep_for(kRetryPause);
  }
}

Task<void> BatchService::Impl::enter(Shared batch, BatchStatus status) {
  batch->record.enter(status, unix_time_ms());
  count();
  co_return co_await put(batch);
}

asio::awaitable<void> BatchService::Impl::run(Shared batch) {
  const Result<void> worked = co_await work(batch);
  if (worked || stopping_) co_return;
  log::error("batch {} failed: {}", batch->record.id, worked.error().message);
  batch->record.faults.push_back({std::string(name(worked.error().code)), worked.error().message, "", 0});
  (void)co_await enter(batch, BatchStatus::kFailed);
}

// One step after the other; each begins where a crash has left it.
Task<void> BatchService::Impl::work(Shared batch) {
  BatchRecord& record = batch->record;
  if (record.ending == BatchStatus::kValidating) {
    auto valid = co_await validate(batch);
    const bool runs = CO_TRY(valid);
    if (stopping_) co_return Result<void>{};
    if (!runs) co_return co_await enter(batch, BatchStatus::kFailed);
    auto begun = co_await begin(batch);
    CO_TRY(begun);
    auto ran = co_await run_lines(batch);
    CO_TRY(ran);
    if (stopping_) co_return Result<void>{};
  }
  co_return co_await finish(batch);
}

// Also where lines are run already: it says where they are.
Task<bool> BatchService::Impl::validate(Shared batch) {
  const std::string file = batch->record.input_file_id;
  auto verified = co_await files_.verify(file);
  CO_TRY(verified);
  BatchInput input(batch->record.endpoint, context_.served_model());
  std::string bytes;
  for (uint64_t offset = 0; !input.is_hopeless() && !stopping_;) {
    auto read = co_await files_.read(file, offset, kPieceBytes);
    const std::string piece = CO_TRY(read);
    bytes += piece;
    offset += piece.size();
    const bool last = piece.size() < kPieceBytes;
    const auto check = [&]() -> size_t { return input.push(bytes, last); };
    const size_t taken = co_await context_.text_lane.render(bytes.size(), check);
    bytes.erase(0, taken);
    if (last) break;
  }
  input.finish();
  batch->lines = std::move(input.lines());
  batch->record.faults = std::move(input.faults());
  batch->record.counts.total = batch->record.faults.empty() ? std::ssize(batch->lines) : 0;
  co_return batch->record.faults.empty();
}

Task<void> BatchService::Impl::begin(Shared batch) {
  BatchRecord& record = batch->record;
  if (record.output_file_id.empty()) {
    record.output_file_id = context_.new_id("file-");
    record.error_file_id = context_.new_id("file-");
  }
  if (record.status == BatchStatus::kValidating) co_return co_await enter(batch, BatchStatus::kInProgress);
  co_return co_await put(batch);
}

// By number, from both files; what a crash has cut off is not.
Task<std::unordered_set<int64_t>> BatchService::Impl::done_lines(Shared batch) {
  std::unordered_set<int64_t> done;
  BatchRecord& record = batch->record;
  for (int64_t* count : {&record.counts.completed, &record.counts.failed}) {
    const std::string id = count == &record.counts.completed ? record.output_file_id : record.error_file_id;
    auto recovered = co_await files_.recover_part(id, kResultPrefixBytes);
    const std::vector<std::string> prefixes = CO_TRY(recovered);
    *count = 0;
    for (const std::string& prefix : prefixes) {
      const auto number = number_of_result(record, prefix);
      if (!number || !done.insert(*number).second)
        co_return fail(ErrorCode::kCorrupt, "the file " + id + " has a line that was not written into it");
      ++*count;
    }
  }
  co_return done;
}

Task<void> BatchService::Impl::run_lines(Shared batch) {
  auto recovered = co_await done_lines(batch);
  const std::unordered_set<int64_t> done = CO_TRY(recovered);
  for (const BatchLine line : std::vector<BatchLine>(batch->lines)) {
    if (done.contains(line.number)) continue;
    co_await wait_for_place(batch);
    if (stopping_) break;
    ++in_work_;
    ++batch->in_work;
    if (is_over(*batch)) {
      co_await run_line(batch, line);  // only says so
    } else {
      gate_.spawn(run_line(batch, line));
    }
  }
  while (batch->in_work > 0) co_await changed_.wait();  // each line ends: its job does, or is_over(), or stop()
  co_return Result<void>{};
}

// Of several batches the one that has waited for longest goes first: they take turns.
asio::awaitable<void> BatchService::Impl::wait_for_place(Shared batch) {
  while (!stopping_ && !is_over(*batch)) {
    if (in_work_ < kBatchLinesInWork) {
      const ClusterView cluster = context_.inference.cluster();
      if (cluster.ready() && cluster.waiting == 0) co_return;
    }
    co_await changed_.wait_until(context_.clock.after(kPause));
  }
}

asio::awaitable<void> BatchService::Impl::run_line(Shared batch, BatchLine line) {
  const Result<void> answered = co_await answer_line(batch, line);
  if (!answered && !stopping_)
    log::error("batch {}, line {}: {}", batch->record.id, line.number, answered.error().message);
  --in_work_;
  --batch->in_work;
  changed_.notify();
}

Task<void> BatchService::Impl::answer_line(Shared batch, BatchLine line) {
  auto read = co_await read_line(batch, line);
  BatchLineRequest request = CO_TRY(read);
  Result<JobView> job = co_await run_job(batch, line.number, std::move(request.body));
  if (stopping_) co_return Result<void>{};
  if (!job)
    co_return co_await write_error(batch, line.number, std::move(request.custom_id), std::move(job.error()), "");
  const JobHead& head = job->head;
  if (head.status == JobStatus::kSucceeded)
    co_return co_await write_answer(batch, line.number, std::move(request.custom_id), std::move(*job));
  Error error{ErrorCode::kCancelled, "the job of this line was cancelled", ""};
  if (head.error) error = *head.error;
  const std::string id = head.id;
  auto written = co_await write_error(batch, line.number, std::move(request.custom_id), std::move(error), id);
  co_return written;
}

Task<BatchLineRequest> BatchService::Impl::read_line(Shared batch, BatchLine line) {
  auto read = co_await files_.read(batch->record.input_file_id, line.offset, line.bytes);
  const std::string text = CO_TRY(read);
  const auto parse = [&] { return read_batch_line(text); };
  co_return co_await context_.text_lane.render(text.size(), parse);
}

// Its end, or why there is none. What has no room now is tried again, until the batch is over.
Task<JobView> BatchService::Impl::run_job(Shared batch, int64_t number, std::string body) {
  while (!stopping_ && !is_over(*batch)) {
    auto prepared = co_await submission(batch, number, body);
    Result<JobView> job = fail(ErrorCode::kInternal, "");
    if (prepared) job = co_await jobs_.submit(std::move(*prepared));
    if (prepared && job) co_return co_await ended_job(batch, std::move(*job));
    const Error& error = prepared ? job.error() : prepared.error();
    if (!can_wait(error)) co_return std::unexpected(error);
    co_await changed_.wait_until(context_.clock.after(kRetryPause));
  }
  co_return fail(ErrorCode::kCancelled, "the batch was over before this line ran");
}

Task<JobSubmission> BatchService::Impl::submission(Shared batch, int64_t number, std::string body) {
  const BatchRecord& record = batch->record;
  const std::string key = record.id + ":" + std::to_string(number);
  const std::string digest = hex(sha256(body));
  auto prepared = co_await prepare_generation(context_, openai_body(record.endpoint), std::move(body));
  const GenerationRequest request = CO_TRY(prepared);
  HttpRequest caller;
  caller.owner = record.owner;
  caller.trace = new_trace(context_.rng, context_.options.http.record_traces);
  caller.received_at = context_.clock.now();
  JobSubmission submitted = CO_TRY(openai_job(context_, caller, request));
  submitted.idempotency_key = key;
  submitted.request_digest = digest;
  co_return submitted;
}

Task<JobView> BatchService::Impl::ended_job(Shared batch, JobView job) {
  const std::string owner = batch->record.owner, id = job.head.id;
  auto subscribed = co_await jobs_.subscribe(owner, id, 0);
  const std::shared_ptr<JobEvents> events = CO_TRY(subscribed);
  bool told = false;
  while (!stopping_) {
    const Result<StreamEvent> event = co_await events->next(context_.clock.after(kPause));
    const bool may_have_ended = !event || std::holds_alternative<FinishedEvent>(*event);
    if (may_have_ended) {
      Result<JobView> found = co_await jobs_.find(owner, id);
      if (!found || has_ended(found->head.status)) co_return found;
    }
    if (is_over(*batch) && !std::exchange(told, true)) (void)co_await jobs_.cancel(owner, id);
  }
  co_return job;
}

Task<void> BatchService::Impl::write_answer(Shared batch, int64_t number, std::string custom_id, JobView job) {
  const auto render = [&]() -> std::string {
    const std::string response = response_json(200, job.head.id, to_text(openai_answer(job, context_.codec)));
    return result_line(batch->record, number, custom_id, response, {});
  };
  std::string line = co_await context_.text_lane.render(text_bytes(job), render);
  co_return co_await write(batch, true, std::move(line));
}

Task<void> BatchService::Impl::write_error(Shared batch, int64_t number, std::string custom_id, Error error,
                                           std::string job_id) {
  std::string response;
  std::optional<Error> why;
  if (error.code == ErrorCode::kCancelled && is_over(*batch)) {
    const bool cancelled = batch->record.is_cancelled();
    why = Error{ErrorCode::kCancelled,
                cancelled ? "the batch was cancelled before this line had an answer"
                          : "the batch's completion window ended before this line had an answer",
                cancelled ? "batch_cancelled" : "batch_expired"};
    batch->has_expired_lines = batch->has_expired_lines || !cancelled;
  } else {
    response = response_json(http_status(error.code), job_id, to_text(error_json(error)));
  }
  std::string line = result_line(batch->record, number, custom_id, response, why);
  co_return co_await write(batch, false, std::move(line));
}

// Until it is in its file: a line that is done is never lost for want of room.
Task<void> BatchService::Impl::write(Shared batch, bool completed, std::string line) {
  BatchRecord& record = batch->record;
  const std::string id = completed ? record.output_file_id : record.error_file_id;
  for (;;) {
    auto written = co_await files_.append(id, line);
    if (written) {
      ++(completed ? record.counts.completed : record.counts.failed);
      context_.metrics.batch_line(completed);
    }
    if (written || stopping_) co_return written;
    log::error("batch {}: {}; trying again", record.id, written.error().message);
    co_await context_.clock.sleep_for(kRetryPause);
  }
}

Task<void> BatchService::Impl::finish(Shared batch) {
  BatchRecord& record = batch->record;
  if (record.ending == BatchStatus::kValidating) {
    record.ending = record.is_cancelled()      ? BatchStatus::kCancelled
                    : batch->has_expired_lines ? BatchStatus::kExpired
                                               : BatchStatus::kCompleted;
    if (!record.is_cancelled()) record.enter(BatchStatus::kFinalizing, unix_time_ms());
    auto committed = co_await put(batch);
    CO_TRY(committed);
  }
  if (record.counts.completed > 0) {
    auto finished = co_await finish_part(record, record.output_file_id, "_output.jsonl");
    CO_TRY(finished);
  }
  if (record.counts.failed > 0) {
    auto finished = co_await finish_part(record, record.error_file_id, "_error.jsonl");
    CO_TRY(finished);
  }
  co_return co_await enter(batch, record.ending);
}

Task<void> BatchService::Impl::finish_part(BatchRecord record, std::string id, std::string suffix) {
  FileHead head{.id = std::move(id), .owner = record.owner, .filename = record.id + suffix, .purpose = "batch_output"};
  head.created_unix_ms = unix_time_ms();
  for (;;) {
    auto finished = co_await files_.finish_part(head);
    if (finished) co_return Result<void>{};
    if (stopping_ || !can_wait(finished.error())) co_return std::unexpected(finished.error());
    log::error("batch {}: {}; trying again", record.id, finished.error().message);
    co_await context_.clock.sleep_for(kRetryPause);
  }
}

BatchService::BatchService(const GatewayContext& context, JobsApi& jobs, FileStore& files)
    : impl_(std::make_shared<Impl>(context, jobs, files)) {}
BatchService::~BatchService() = default;
void BatchService::resume() { impl_->resume(); }
Task<BatchRecord> BatchService::create(std::string owner, BatchRequest request) {
  return impl_->create(std::move(owner), std::move(request));
}
const BatchRecord* BatchService::find(const std::string& owner, const std::string& id) const {
  return impl_->find(owner, id);
}
std::vector<const BatchRecord*> BatchService::of(const std::string& owner) const { return impl_->of(owner); }
Task<BatchRecord> BatchService::cancel(std::string owner, std::string id) {
  return impl_->cancel(std::move(owner), std::move(id));
}
bool BatchService::reads(const std::string& file_id) const { return impl_->reads(file_id); }
asio::awaitable<void> BatchService::stop() { return impl_->stop(); }

}  // namespace runahead
