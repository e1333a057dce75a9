#include "actors/job_service.h"

#include <set>

#include "actors/job_json.h"
#include "actors/token_stream.h"
#include "base/limits.h"
#include "base/rng.h"
#include "loop.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

// Rows in memory, with a disk that a test can make slow or broken.
class FakeStore final : public JobStore {
 public:
  explicit FakeStore(Clock& clock) : clock_(clock) {}
  Result<Loaded> load() override {
    Loaded loaded{.epoch = ++epoch_};
    for (auto& [id, row] : rows)
      if (row.status == JobStatus::kQueued || row.status == JobStatus::kRunning) loaded.unfinished.push_back(row);
    return loaded;
  }
  Task<void> commit(JobRow row) override {
    if (delay > 0ns) co_await clock_.sleep_for(delay);
    if (broken) co_return fail(ErrorCode::kInternal, "the disk is full");
    rows[row.id] = row;
    co_return Result<void>{};
  }
  Task<std::shared_ptr<const JobRow>> find(std::string id) override {
    const auto found = rows.find(id);
    co_return found == rows.end() ? nullptr : std::make_shared<const JobRow>(found->second);
  }
  Task<std::shared_ptr<const JobRow>> find_by_key(std::string key) override {
    for (auto& [id, row] : rows)
      if (row.idempotency_key == key) co_return std::make_shared<const JobRow>(row);
    co_return nullptr;
  }
  Task<std::vector<JobRow>> list(int32_t) override {
    std::vector<JobRow> all;
    for (auto& [id, row] : rows) all.push_back(row);
    co_return all;
  }

  std::map<std::string, JobRow> rows;
  Duration delay{0};
  bool broken = false;

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
  JobView submit(std::string key = {}) {
    JobSubmission submission{
        .request = {.prompt = {1, 2, 3}, .max_new_tokens = 3, .sampling = {.seed = 9}, .stop_tokens = {7}},
        .idempotency_key = std::move(key),
        .client_json = R"({"kind":"chat"})"};
    Result<JobView> view = run(service->submit(std::move(submission)));
    EXPECT_TRUE(view) << view.error().message;
    return view.value_or(JobView{});
  }
  JobView find(const std::string& id) { return run(service->find(id)).value_or(JobView{.id = "none"}); }
  void push(size_t stream, int32_t first_index, std::vector<TokenId> ids) {
    TokensEvent event{.first_index = first_index};
    for (const TokenId id : ids) event.tokens.push_back({.token = id, .logprob = -1.5f, .top = {{id, -1.5f}}});
    EXPECT_TRUE(inference.queues[stream]->push(std::move(event)));
  }
  void finish(size_t stream) {
    FinishedEvent event{.reason = FinishReason::kLength, .generated = 3, .total_seconds = 0.5};
    event.report.ranks.push_back({.rank = 0, .worker = "w", .chunk = {0, 3}});
    event.report.queue = event.report.ttft_seconds = 0.25;
    event.report.cuts = {64};
    EXPECT_TRUE(inference.queues[stream]->push(std::move(event)));
  }
  bool is(const std::string& id, JobStatus status) {
    return run_until([&] { return find(id).status == status; });
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
  EXPECT_EQ(view.id.size(), 28u);
  EXPECT_EQ(view.client_json, R"({"kind":"chat"})");
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  EXPECT_EQ(jobs.inference.requests[0].sampling.seed, 9u);
  jobs.push(0, 0, {4, 5});
  EXPECT_TRUE(jobs.run_until([&] { return jobs.find(view.id).tokens.size() == 2; }));
  jobs.push(0, 2, {6});
  jobs.finish(0);
  ASSERT_TRUE(jobs.is(view.id, JobStatus::kSucceeded));
  const JobView done = jobs.find(view.id);  // from the store now
  EXPECT_EQ(ids_of(done.tokens), (std::vector<TokenId>{4, 5, 6}));
  EXPECT_EQ(done.tokens[0].top.size(), 1u);
  ASSERT_TRUE(done.finished);
  EXPECT_EQ(done.finished->reason, FinishReason::kLength);
  EXPECT_EQ(done.finished->report.cuts, std::vector<int32_t>{64});
  EXPECT_EQ(done.finished->report.queue, 0.25);
  EXPECT_EQ(done.ended_unix_ms, 1234);
  EXPECT_EQ(jobs.run(jobs.service->list(10))->size(), 1u);
}

TEST(JobService, AJobIsDurableBeforeItIsAcknowledged) {
  Jobs jobs;
  jobs.store.delay = 20ms;
  const JobView view = jobs.submit();
  EXPECT_TRUE(jobs.store.rows.contains(view.id));
  jobs.store.broken = true;
  EXPECT_FALSE(jobs.run(jobs.service->submit({.request = {.prompt = {1}}}))) << "what cannot be stored is not accepted";
  jobs.store.broken = false;
}

TEST(JobService, WithoutTheWaitForTheCommitItWouldNotBe) {  // the planted bug that the simulation must find
  Jobs jobs;
  jobs.stop();
  jobs.start({.ack_before_commit = true});
  jobs.store.delay = 20ms;
  const JobView view = jobs.submit();
  EXPECT_FALSE(jobs.store.rows.contains(view.id));
}

TEST(JobService, TheSameKeyGivesTheSameJob) {
  Jobs jobs;
  const JobView first = jobs.submit("key");
  EXPECT_EQ(jobs.submit("key").id, first.id);
  EXPECT_NE(jobs.submit("other").id, first.id);
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  jobs.push(0, 0, {1, 2, 3});
  jobs.finish(0);
  ASSERT_TRUE(jobs.is(first.id, JobStatus::kSucceeded));
  EXPECT_EQ(jobs.submit("key").id, first.id) << "also when it has ended";
}

TEST(JobService, AnUnfinishedJobRunsAgainAfterARestartAndReadersSeeEachIndexOnce) {
  Jobs jobs;
  const JobView view = jobs.submit();
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  jobs.push(0, 0, {4, 5});
  EXPECT_TRUE(jobs.run_until([&] { return jobs.find(view.id).tokens.size() == 2; }));
  jobs.stop();
  jobs.start();
  ASSERT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 2; }));
  EXPECT_EQ(jobs.inference.requests[1].prompt, jobs.inference.requests[0].prompt);
  EXPECT_EQ(jobs.inference.requests[1].stop_tokens, jobs.inference.requests[0].stop_tokens);
  EXPECT_EQ(jobs.inference.requests[1].sampling.seed, 9u);
  const auto events = jobs.run(jobs.service->subscribe(view.id, 2));
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
  std::vector<JobView> views;
  for (int i = 0; i < limits::kJobsRunningMax + 1; ++i) views.push_back(jobs.submit());
  ASSERT_TRUE(jobs.run_until([&] { return std::ssize(jobs.inference.queues) == limits::kJobsRunningMax; }));
  EXPECT_EQ(jobs.find(views.back().id).status, JobStatus::kQueued) << "no more run at once than the bound says";
  for (const JobView& view : {views.front(), views.back()}) {
    EXPECT_TRUE(jobs.run(jobs.service->cancel(view.id)));
    EXPECT_TRUE(jobs.is(view.id, JobStatus::kCancelled));
  }
  EXPECT_EQ(jobs.run(jobs.service->cancel("job-none")).error().code, ErrorCode::kNotFound);
}

TEST(JobService, AJobWaitsForAClusterThatIsFullAndFailsWithTheReasonOfOneThatSaysNo) {
  Jobs jobs;
  jobs.inference.refuse = Error{ErrorCode::kUnavailable, "no workers"};
  const JobView waiting = jobs.submit();
  jobs.run_until([&] { return false || jobs.clock.now() > 0ns; });
  EXPECT_FALSE(jobs.find(waiting.id).error);
  jobs.inference.refuse.reset();
  EXPECT_TRUE(jobs.run_until([&] { return jobs.inference.queues.size() == 1; }));
  jobs.inference.refuse = Error{ErrorCode::kContextOverflow, "too long"};
  const JobView failing = jobs.submit();
  ASSERT_TRUE(jobs.is(failing.id, JobStatus::kFailed));
  EXPECT_EQ(jobs.find(failing.id).error->code, ErrorCode::kContextOverflow);
}

TEST(JobJson, WhatIsWrittenIsReadAndRubbishIsAnError) {
  StoredRequest stored{.request = {.external_id = "x", .prompt = {1, 2}, .max_new_tokens = 5,
                                   .sampling = {.temperature = 0.1f, .logit_bias = {{3, 0.25f}}, .banned = {2},
                                                .banned_before = 9, .seed = ~0ull},
                                   .stop_tokens = {9}, .strategy = Strategy::kByHand, .cuts = {64}, .workers_max = 3,
                                   .deadline = 7s},
                       .client_json = "\"quoted\""};
  const auto back = request_from_json(to_json(stored));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->request.prompt, stored.request.prompt);
  EXPECT_EQ(back->request.sampling.temperature, 0.1f);
  EXPECT_EQ(back->request.sampling.seed, ~0ull);
  EXPECT_EQ(back->request.sampling.banned, stored.request.sampling.banned);
  EXPECT_EQ(back->request.sampling.banned_before, 9);
  EXPECT_EQ(back->request.sampling.logit_bias, stored.request.sampling.logit_bias);
  EXPECT_EQ(back->request.strategy, Strategy::kByHand);
  EXPECT_EQ(back->request.deadline, Duration(7s));
  EXPECT_EQ(back->client_json, stored.client_json);
  for (const std::string& text : {"", "{", "[]", "null", "{\"prompt\":3}", "{\"tokens\":[[]]}"}) {
    EXPECT_EQ(request_from_json(text).error().code, ErrorCode::kCorrupt) << text;
    EXPECT_EQ(result_from_json(text).error().code, ErrorCode::kCorrupt) << text;
  }
}

}  // namespace
}  // namespace runahead::test
