#include "actors/jobs/job_service.h"

#include <set>

#include "actors/coordinator/token_stream.h"
#include "base/limits.h"
#include "base/rng.h"
#include "tests/support/loop.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

// Rows in memory, with a disk that a test can make slow or broken.
class FakeStore final : public JobStore {
 public:
  explicit FakeStore(Clock& clock) : clock_(clock) {}
  struct Row {
    JobHead head;
    std::shared_ptr<const StoredRequest> request;
    std::shared_ptr<const StoredResult> result;
  };
  Result<Loaded> load() override {
    Loaded loaded{.epoch = ++epoch_};
    for (auto& [id, row] : rows)
      if (!has_ended(row.head.status)) loaded.unfinished.push_back(row.head);
    return loaded;
  }
  Task<void> accept(JobHead head, std::shared_ptr<const StoredRequest> request) override {
    ++accepting;
    if (delay > 0ns) co_await clock_.sleep_for(delay);
    if (broken) co_return fail(ErrorCode::kInternal, "the disk is full");
    const std::string id = head.id;
    rows[id] = Row{std::move(head), std::move(request), nullptr};
    co_return Result<void>{};
  }
  Task<void> end(JobHead head, std::shared_ptr<const StoredResult> result) override {
    if (broken) co_return fail(ErrorCode::kInternal, "the disk is full");
    Row& row = rows[head.id];
    row.head = std::move(head);
    row.result = std::move(result);
    co_return Result<void>{};
  }
  Task<void> keep(JobHead ended, std::shared_ptr<const StoredRequest> request,
                  std::shared_ptr<const StoredResult> result) override {
    if (broken) co_return fail(ErrorCode::kInternal, "the disk is full");
    const std::string id = ended.id;
    rows[id] = Row{std::move(ended), std::move(request), std::move(result)};
    co_return Result<void>{};
  }
  Task<void> remove(std::string id) override {
    rows.erase(id);
    co_return Result<void>{};
  }
  Task<std::shared_ptr<const JobRecord>> find(std::string id) override {
    const auto found = rows.find(id);
    if (found == rows.end()) co_return nullptr;
    auto record = std::make_shared<JobRecord>();
    record->head = found->second.head;
    record->client_json = found->second.request->client_json;
    record->result = found->second.result;
    co_return record;
  }
  Task<std::shared_ptr<const StoredRequest>> request(std::string id) override {
    ++loads;
    if (no_memory) throw std::bad_alloc();
    if (damaged) co_return fail(ErrorCode::kCorrupt, "the row is damaged");
    co_return rows.at(id).request;
  }
  Task<std::shared_ptr<const JobHead>> find_by_key(std::string owner, std::string key) override {
    for (auto& [id, row] : rows)
      if (row.head.owner == owner && row.head.idempotency_key == key)
        co_return std::make_shared<const JobHead>(row.head);
    co_return nullptr;
  }
  Task<std::vector<JobHead>> list(JobQuery) override {
    std::vector<JobHead> all;
    for (auto& [id, row] : rows) all.push_back(row.head);
    co_return all;
  }

  std::map<std::string, Row> rows;
  Duration delay{0};
  bool broken = false, damaged = false, no_memory = false;
  int accepting = 0, loads = 0;

 private:
  Clock& clock_;
  uint64_t epoch_ = 0;
};

// Streams that the test feeds.
class FakeInference final : public InferenceService {
 public:
  struct Stream final : TokenStream {
    Task<StreamEvent> next(Deadline deadline) override { return TokenQueue::next(queue, deadline); }
    bool ended() const override { return queue->ended(); }
    void finish() override { (void)queue->push(FinishedEvent{.reason = FinishReason::kStop}); }
    void cancel() override { queue->close({ErrorCode::kCancelled, "cancelled"}); }
    void first_chunk_written() override {}
    std::shared_ptr<TokenQueue> queue;
  };
  explicit FakeInference(Loop& loop) : loop_(loop) {}
  Result<std::shared_ptr<TokenStream>> submit(InferenceRequest request) override {
    if (refuse) return std::unexpected(*refuse);
    requests.push_back(std::move(request));
    auto stream = std::make_shared<Stream>();
    stream->queue = std::make_shared<TokenQueue>(loop_.io.get_executor(), loop_.clock);
    queues.push_back(stream->queue);
    return stream;
  }
  ClusterView cluster() const override { return {}; }

  std::optional<Error> refuse;
  std::vector<InferenceRequest> requests;
  std::vector<std::shared_ptr<TokenQueue>> queues;

 private:
  Loop& loop_;
};

struct Jobs : Loop {
  Jobs() { start(); }
  ~Jobs() { stop(); }

  void start(TestFaults faults = {}) {
    service = std::make_unique<JobService>(
        JobServiceEnv{io.get_executor(), clock, rng, inference, store, [] { return int64_t{1234}; }, {}}, faults);
    service->resume(store.load()->unfinished);
  }
  void stop() {
    bool stopped = false;
    asio::co_spawn(io, service->stop(), [&](std::exception_ptr) { stopped = true; });
    EXPECT_TRUE(run_until([&] { return stopped; }));
    service.reset();
  }
  bool run_until(std::function<bool()> condition) {
    io.restart();
    const Time end = clock.now() + 5s;
    while (!condition() && clock.now() < end) io.run_one_for(5ms);
    return condition();
  }
  static JobSubmission submission(std::string key = {}, std::string owner = {}, std::string digest = "d") {
    return {.request = {.prompt = {1, 2, 3}, .max_new_tokens = 3, .sampling = {.seed = 9}, .stop_tokens = {7}},
            .owner = std::move(owner),
            .idempotency_key = std::move(key),
            .request_digest = std::move(digest),
            .kind = "chat",
            .client_json = R"({"kind":"chat"})"};
  }
  JobView submit(std::string key = {}, std::string owner = {}, std::string digest = "d") {
    Result<JobView> view = run(service->submit(submission(std::move(key), std::move(owner), std::move(digest))));
    EXPECT_TRUE(view) << view.error().message;
    return view.value_or(JobView{});
  }
  std::string submit_id(std::string key = {}, std::string owner = {}) {
    return submit(std::move(key), std::move(owner)).head.id;
  }
  JobView find(const std::string& id) { return run(service->find("", id)).value_or(JobView{.head = {.id = "none"}}); }
  Result<JobView> cancel(const std::string& id) { return run(service->cancel("", id)); }
  void push(size_t stream, int32_t first_index, std::vector<TokenId> ids) {
    TokensEvent event{.first_index = first_index};
    for (const TokenId id : ids) event.tokens.push_back({.token = id, .logprob = -1.5f, .top = {{id, -1.5f}}});
    EXPECT_TRUE(inference.queues[stream]->push(std::move(event)));
  }
  void finish(size_t stream) {
    FinishedEvent event{.reason = FinishReason::kLength, .generated = 3, .total_seconds = 0.5};
    event.report.ranks.push_back({.rank = 0, .worker = "w", .chunk = {0, 3}});
    event.report.stages[TtftStage::kQueue] = event.report.ttft_seconds = 0.25;
    event.report.cuts = {64};
    EXPECT_TRUE(inference.queues[stream]->push(std::move(event)));
  }
  bool is(const std::string& id, JobStatus status) {
    return run_until([&] { return find(id).head.status == status; });
  }

  SeededRng rng{3};
  FakeInference inference{*this};
  FakeStore store{clock};
  std::unique_ptr<JobService> service;
};

std::vector<TokenId> ids_of(const std::vector<SampledToken>& tokens) {
  std::vector<TokenId> ids;
  for (const SampledToken& token : tokens) ids.push_back(token.token);
  return ids;
}

TEST(JobService, AJobRunsAndItsResultIsKept) {
  Jobs jobs;
  const JobView view = jobs.submit();
  const std::string id = view.head.id;
  EXPECT_EQ(id.size(), 28u);
  EXPECT_EQ(view.client_json, R"({"kind":"chat"})");
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  EXPECT_EQ(jobs.inference.requests[0].sampling.seed, 9u);
  jobs.push(0, 0, {4, 5});
  EXPECT_TRUE(jobs.run_until([&] { return jobs.find(id).head.completion_tokens == 2; }));
  EXPECT_EQ(jobs.find(id).result, nullptr) << "it has none before its end";
  jobs.push(0, 2, {6});
  jobs.finish(0);
  ASSERT_TRUE(jobs.is(id, JobStatus::kSucceeded));
  const JobView done = jobs.find(id);  // from the store now
  ASSERT_NE(done.result, nullptr);
  EXPECT_EQ(ids_of(done.result->tokens), (std::vector<TokenId>{4, 5, 6}));
  EXPECT_EQ(done.result->tokens[0].top.size(), 1u);
  EXPECT_EQ(done.head.completion_tokens, 3);
  EXPECT_EQ(done.head.prompt_tokens, 3);
  ASSERT_TRUE(done.result->finished);
  EXPECT_EQ(done.result->finished->reason, FinishReason::kLength);
  EXPECT_EQ(done.result->finished->report.cuts, std::vector<int32_t>{64});
  EXPECT_EQ(done.result->finished->report.stages[TtftStage::kQueue], 0.25);
  EXPECT_EQ(done.head.ended_unix_ms, 1234);
  EXPECT_EQ(jobs.run(jobs.service->list({}))->size(), 1u);
}

TEST(JobService, AJobIsDurableBeforeItIsAcknowledged) {
  Jobs jobs;
  jobs.store.delay = 20ms;
  EXPECT_TRUE(jobs.store.rows.contains(jobs.submit_id()));
  jobs.store.broken = true;
  EXPECT_FALSE(jobs.run(jobs.service->submit({.request = {.prompt = {1}}}))) << "what cannot be stored is not accepted";
  jobs.store.broken = false;
}

TEST(JobService, WithoutTheWaitForTheCommitItWouldNotBe) {  // the planted bug that the simulation must find
  Jobs jobs;
  jobs.stop();
  jobs.start({.ack_before_commit = true});
  jobs.store.delay = 20ms;
  EXPECT_FALSE(jobs.store.rows.contains(jobs.submit_id()));
}

TEST(JobService, TheSameKeyGivesTheSameJob) {
  Jobs jobs;
  const std::string first = jobs.submit_id("key");
  EXPECT_EQ(jobs.submit_id("key"), first);
  EXPECT_NE(jobs.submit_id("other"), first);
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  jobs.push(0, 0, {1, 2, 3});
  jobs.finish(0);
  ASSERT_TRUE(jobs.is(first, JobStatus::kSucceeded));
  EXPECT_EQ(jobs.submit_id("key"), first) << "also when it has ended";
}

TEST(JobService, TheSameKeyWithAnotherRequestIsRefusedAndAnotherOwnersKeyIsAnotherKey) {
  Jobs jobs;
  const std::string first = jobs.submit_id("key", "alice");
  const auto other_request = [&] {
    return jobs.run(jobs.service->submit(Jobs::submission("key", "alice", "another")));
  };
  EXPECT_EQ(other_request().error().code, ErrorCode::kKeyReused) << "while it runs";
  EXPECT_NE(other_request().error().message.find(first), std::string::npos) << "the sentence names the first job";
  EXPECT_NE(jobs.submit_id("key", "bob"), first);
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  jobs.finish(0);
  ASSERT_TRUE(jobs.run_until([&] { return has_ended(jobs.store.rows.at(first).head.status); }));
  EXPECT_EQ(other_request().error().code, ErrorCode::kKeyReused) << "when it has ended";
  jobs.stop();
  jobs.start();
  EXPECT_EQ(other_request().error().code, ErrorCode::kKeyReused) << "after a restart";
  EXPECT_EQ(jobs.submit_id("key", "alice"), first);
}

TEST(JobService, RepeatsThatComeWhileTheFirstIsBeingAcceptedGiveTheSameJob) {
  Jobs jobs;
  jobs.store.delay = 20ms;
  std::vector<Result<JobView>> views;
  for (const char* digest : {"d", "d", "another", "d"})
    asio::co_spawn(jobs.io, jobs.service->submit(Jobs::submission("key", "", digest)),
                   [&](std::exception_ptr, Result<JobView> view) { views.push_back(std::move(view)); });
  ASSERT_TRUE(jobs.run_until([&] { return views.size() == 4; }));
  EXPECT_EQ(jobs.store.accepting, 1);
  std::set<std::string> ids;
  int refused = 0;
  for (const Result<JobView>& view : views) {
    if (view) ids.insert(view->head.id);
    refused += !view && view.error().code == ErrorCode::kKeyReused;
  }
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_EQ(refused, 1);
}

TEST(JobService, WhenTheFirstCannotBeStoredTheNextWithItsKeyIsTried) {
  Jobs jobs;
  jobs.store.delay = 20ms;
  jobs.store.broken = true;
  std::vector<Result<JobView>> views;
  const auto submit = [&] {
    asio::co_spawn(jobs.io, jobs.service->submit(Jobs::submission("key")),
                   [&](std::exception_ptr, Result<JobView> view) { views.push_back(std::move(view)); });
  };
  submit();
  submit();
  ASSERT_TRUE(jobs.run_until([&] { return views.size() == 1; }));
  jobs.store.broken = false;
  ASSERT_TRUE(jobs.run_until([&] { return views.size() == 2; }));
  EXPECT_FALSE(views[0]);
  EXPECT_TRUE(views[1]);
}

TEST(JobService, AJobIsSeenByItsOwnerOnlyAndOneOfNobodyByAll) {
  Jobs jobs;
  const std::string hers = jobs.submit_id("", "alice"), free = jobs.submit_id();
  EXPECT_TRUE(jobs.run(jobs.service->find("alice", hers)));
  for (const char* stranger : {"bob", ""}) {
    EXPECT_EQ(jobs.run(jobs.service->find(stranger, hers)).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(jobs.run(jobs.service->cancel(stranger, hers)).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(jobs.run(jobs.service->subscribe(stranger, hers, 0)).error().code, ErrorCode::kNotFound);
    EXPECT_TRUE(jobs.run(jobs.service->find(stranger, free)));
  }
  EXPECT_NE(jobs.run(jobs.service->find("alice", hers))->head.status, JobStatus::kCancelled);
  EXPECT_TRUE(jobs.run(jobs.service->cancel("bob", free)));
}

TEST(JobService, AnUnfinishedJobRunsAgainAfterARestartAndReadersSeeEachIndexOnce) {
  Jobs jobs;
  const std::string id = jobs.submit_id();
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  jobs.push(0, 0, {4, 5});
  EXPECT_TRUE(jobs.run_until([&] { return jobs.find(id).head.completion_tokens == 2; }));
  jobs.stop();
  jobs.start();
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  EXPECT_EQ(jobs.inference.requests[1].prompt, jobs.inference.requests[0].prompt);
  EXPECT_EQ(jobs.inference.requests[1].stop_tokens, jobs.inference.requests[0].stop_tokens);
  EXPECT_EQ(jobs.inference.requests[1].sampling.seed, 9u);
  const auto events = jobs.run(jobs.service->subscribe("", id, 2));
  ASSERT_TRUE(events);
  jobs.push(1, 0, {4, 5, 6});
  jobs.finish(1);
  const auto event = jobs.run((*events)->next(jobs.clock.after(2s)));
  ASSERT_TRUE(event);
  EXPECT_EQ(std::get<TokensEvent>(*event).first_index, 2);
  EXPECT_EQ(ids_of(std::get<TokensEvent>(*event).tokens), std::vector<TokenId>{6});
  const auto end = jobs.run((*events)->next(jobs.clock.after(2s)));
  ASSERT_TRUE(end);
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(*end));
}

TEST(JobService, CancelEndsARunningAndAWaitingJob) {
  Jobs jobs;
  std::vector<std::string> ids;
  for (int i = 0; i < limits::kJobsRunningMax + 1; ++i) ids.push_back(jobs.submit_id());
  ASSERT_TRUE(jobs.run_until([&] { return std::ssize(jobs.inference.queues) == limits::kJobsRunningMax; }));
  EXPECT_EQ(jobs.find(ids.back()).head.status, JobStatus::kQueued) << "no more run at once than the bound says";
  for (const std::string& id : {ids.front(), ids.back()}) {
    EXPECT_TRUE(jobs.cancel(id));
    EXPECT_TRUE(jobs.is(id, JobStatus::kCancelled));
  }
  EXPECT_EQ(jobs.cancel("job-none").error().code, ErrorCode::kNotFound);
}

TEST(JobService, KeepsWhatRanElsewhereAndForgetsWhatHasEnded) {
  Jobs jobs;
  EndedRun run{.created_unix_ms = 7, .error = {}, .result = {.tokens = {{.token = 5, .logprob = -1}}, .finished = {}}};
  run.result.finished = FinishedEvent{.reason = FinishReason::kLength};
  JobSubmission submission = Jobs::submission("", "owner");
  submission.id = "resp_1";
  const Result<JobView> kept = jobs.run(jobs.service->keep(submission, run));
  ASSERT_TRUE(kept);
  const Result<JobView> found = jobs.run(jobs.service->find("owner", "resp_1"));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->head.status, JobStatus::kSucceeded);
  EXPECT_EQ(found->head.created_unix_ms, 7);
  EXPECT_EQ(found->head.completion_tokens, 1);
  EXPECT_EQ(ids_of(found->result->tokens), std::vector<TokenId>{5});
  EXPECT_EQ(found->client_json, kept->client_json);
  EXPECT_TRUE(jobs.inference.requests.empty()) << "it does not run again";
  EXPECT_EQ(jobs.run(jobs.service->remove("stranger", "resp_1")).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(jobs.run(jobs.service->remove("owner", "resp_1")));
  EXPECT_EQ(jobs.run(jobs.service->find("owner", "resp_1")).error().code, ErrorCode::kNotFound);
  const std::string running = jobs.submit_id();
  EXPECT_EQ(jobs.run(jobs.service->remove("", running)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(jobs.find(running).head.id, running);
  jobs.store.broken = true;
  EXPECT_FALSE(jobs.run(jobs.service->keep(submission, run))) << "what is not durable is not kept";
}

TEST(JobService, TheRequestOfAWaitingJobIsInTheStoreAloneUntilItRuns) {
  Jobs jobs;
  std::vector<std::string> ids;
  for (int i = 0; i < limits::kJobsRunningMax + 1; ++i) ids.push_back(jobs.submit_id());
  ASSERT_TRUE(jobs.run_until([&] { return std::ssize(jobs.inference.queues) == limits::kJobsRunningMax; }));
  EXPECT_EQ(jobs.store.loads, 0) << "what runs at once is not read back";
  EXPECT_EQ(jobs.store.rows.at(ids.back()).request.use_count(), 1) << "the service holds no waiting request";
  EXPECT_EQ(jobs.find(ids.back()).client_json, R"({"kind":"chat"})") << "though it is shown";
  jobs.finish(0);
  ASSERT_TRUE(jobs.run_until([&] { return std::ssize(jobs.inference.queues) > limits::kJobsRunningMax; }));
  EXPECT_EQ(jobs.store.loads, 1);
  EXPECT_EQ(jobs.inference.requests.back().external_id, ids.back());
  EXPECT_EQ(jobs.inference.requests.back().prompt, (std::vector<TokenId>{1, 2, 3}));
}

TEST(JobService, AJobThatCannotBeReadOrHasNoMemoryFailsAlone) {
  for (const bool no_memory : {false, true}) {
    Jobs jobs;
    const std::string id = jobs.submit_id();
    ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
    jobs.stop();
    jobs.store.damaged = !no_memory;
    jobs.store.no_memory = no_memory;
    jobs.start();
    ASSERT_TRUE(jobs.is(id, JobStatus::kFailed));
    EXPECT_EQ(jobs.find(id).head.error->code, no_memory ? ErrorCode::kTooLarge : ErrorCode::kCorrupt);
    jobs.store.damaged = jobs.store.no_memory = false;
    const std::string next = jobs.submit_id();
    ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
    jobs.finish(1);
    EXPECT_TRUE(jobs.is(next, JobStatus::kSucceeded)) << "the others go on";
  }
}

TEST(JobService, AJobHasADeadlineOfItsOwn) {
  Jobs jobs;
  jobs.submit();
  JobSubmission named = Jobs::submission();
  named.request.deadline = 7s;
  ASSERT_TRUE(jobs.run(jobs.service->submit(std::move(named))));
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  EXPECT_EQ(jobs.inference.requests[0].deadline, Duration(limits::kJobDeadline));
  EXPECT_GT(jobs.inference.requests[0].deadline, Duration(limits::kRequestDeadline));
  EXPECT_EQ(jobs.inference.requests[1].deadline, Duration(7s));
}

TEST(JobService, AJobWaitsForAClusterThatIsFullAndFailsWithTheReasonOfOneThatSaysNo) {
  Jobs jobs;
  jobs.inference.refuse = Error{ErrorCode::kUnavailable, "no workers"};
  const std::string waiting = jobs.submit_id();
  jobs.run_until([&] { return jobs.clock.now() > 0ns; });
  EXPECT_FALSE(jobs.find(waiting).head.error);
  jobs.inference.refuse.reset();
  EXPECT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  jobs.inference.refuse = Error{ErrorCode::kContextOverflow, "too long"};
  const std::string failing = jobs.submit_id();
  ASSERT_TRUE(jobs.is(failing, JobStatus::kFailed));
  EXPECT_EQ(jobs.find(failing).head.error->code, ErrorCode::kContextOverflow);
}

}  // namespace
}  // namespace runahead::test
