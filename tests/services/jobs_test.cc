// /v1/jobs over the real JobService and a store in memory.
#include "services/sqlite_job_store.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "services/gateway/jobs_routes.h"
#include "tests/services/gateway_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class JobsTest : public GatewayTest {
 protected:
  void SetUp() override {
    store_ = std::move(*SqliteJobStore::open(""));
    service_ = std::make_unique<JobService>(
        JobServiceEnv{io_.get_executor(), clock_, rng_, inference_, *store_, [] { return int64_t{5000}; },
                      [this](const std::string& json) { return job_stop_rule(codec_, json); }});
    api_ = std::make_unique<JobServiceApi>(*service_);
    start();
  }
  void TearDown() override {
    asio::co_spawn(io_, service_->stop(), asio::use_future).get();
    stop();
    api_.reset();
    service_.reset();
    store_.reset();
  }
  JobsApi* jobs() override { return api_.get(); }

  json wait_for(const std::string& id, const std::string& status) {
    json job;
    EXPECT_TRUE(eventually([&] { return (job = get("/v1/jobs/" + id).json())["status"] == status; })) << job;
    return job;
  }
  std::string submit(const std::string& body, const std::string& headers = "") {
    const RawAnswer answer = post("/v1/jobs", body, headers);
    EXPECT_EQ(answer.status, 202) << answer.body;
    return answer.json().value("id", "");
  }

  SeededRng rng_{1};
  std::unique_ptr<SqliteJobStore> store_;
  std::unique_ptr<JobService> service_;
  std::unique_ptr<JobServiceApi> api_;
};

TEST_F(JobsTest, AStopStringEndsTheJobItself) {
  inference_.set({.text = "one STOP two ", .endless = true});
  const json job = wait_for(submit(R"({"prompt":"a","max_tokens":2000,"stop":"STOP"})"), "succeeded");
  EXPECT_EQ(job["completion_tokens"], 8) << "nothing behind the stop string is kept";
  EXPECT_EQ(job["result"]["choices"][0]["text"], "one ");
  EXPECT_EQ(job["result"]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(job["result"]["usage"]["runahead"]["ttft_seconds"], 0.75);
  EXPECT_EQ(inference_.finished, 1) << "work ends with the answer";
  EXPECT_LT(inference_.produced, 100);
  EXPECT_EQ(inference_.cancelled, 0);
}

TEST_F(JobsTest, SubmittedJobGivesTheAnswerOfItsEndpoint) {
  const std::string chat = submit(R"({"messages":[{"role":"user","content":"hi"}],"stop":"l","logprobs":true})");
  const json job = wait_for(chat, "succeeded");
  EXPECT_EQ(job["result"]["object"], "chat.completion");
  EXPECT_EQ(job["result"]["choices"][0]["message"]["content"], "He") << "the stop string cuts the text of a job too";
  EXPECT_EQ(job["result"]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(job["result"]["choices"][0]["logprobs"]["content"].size(), 2u);
  EXPECT_EQ(job["created_at"], 5);
  EXPECT_TRUE(job["result"]["usage"].contains("runahead"));
  const std::string plain = submit(R"({"prompt":"ab","echo":true})");
  const json answer = wait_for(plain, "succeeded")["result"];
  EXPECT_EQ(answer["choices"][0]["text"], "abHello");
  EXPECT_EQ(answer["usage"]["total_tokens"], 7);
}

TEST_F(JobsTest, ListIsNewestFirstAndBounded) {
  const std::string first = submit(R"({"prompt":"a"})"), second = submit(R"({"prompt":"b"})");
  ASSERT_TRUE(eventually([&] { return !inference_.requests().empty(); }));
  EXPECT_EQ(inference_.requests().back().deadline, Duration(limits::kJobDeadline)) << "not that of a request";
  wait_for(first, "succeeded");
  wait_for(second, "succeeded");
  const json all = get("/v1/jobs").json()["data"];
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["id"], second);
  EXPECT_EQ(get("/v1/jobs?limit=1").json()["data"].size(), 1u);
  for (const char* query : {"?limit=0", "?limit=1001", "?limit=x", "?limit=", "?other=1", "?limit=1&x=2"})
    EXPECT_EQ(get(std::string("/v1/jobs") + query).status, 400) << query;
}

TEST_F(JobsTest, SameIdempotencyKeyGivesTheSameJob) {
  const std::string first = submit(R"({"prompt":"a"})", "Idempotency-Key: k1\r\n");
  wait_for(first, "succeeded");
  EXPECT_EQ(submit(R"({"prompt":"a"})", "Idempotency-Key: k1\r\n"), first);
  EXPECT_NE(submit(R"({"prompt":"a"})", "Idempotency-Key: k2\r\n"), first);
}

TEST_F(JobsTest, EventsGoOnBehindTheLastOneSeen) {
  const std::string id = submit(R"({"prompt":"a"})");
  wait_for(id, "succeeded");
  const auto all = get("/v1/jobs/" + id + "/events").events();
  ASSERT_GE(all.size(), 2u);
  std::string text;
  for (const SseEvent& event : all)
    if (event.name == "tokens") text += json::parse(event.data)["text"].get<std::string>();
  EXPECT_EQ(text, "Hello");
  EXPECT_EQ(all.back().name, "finished");
  EXPECT_EQ(json::parse(all.back().data)["status"], "succeeded");
  const auto rest = get("/v1/jobs/" + id + "/events", "Last-Event-ID: 3\r\n").events();
  EXPECT_EQ(json::parse(rest[0].data)["text"], "lo");
  EXPECT_EQ(json::parse(rest[0].data)["first_index"], 3);
  EXPECT_EQ(rest[0].id, "5");
  EXPECT_EQ(get("/v1/jobs/" + id + "/events", "Last-Event-ID: x\r\n").status, 400);
}

TEST_F(JobsTest, EventsOfARunningJobComeAsTheyHappen) {
  inference_.set({.text = "abcdef", .before_first = 250ms, .between = 20ms});
  const std::string id = submit(R"({"prompt":"a"})");
  const RawAnswer answer = get("/v1/jobs/" + id + "/events");
  EXPECT_NE(answer.body.find(": ping\n\n"), std::string::npos);
  size_t tokens = 0;
  for (const SseEvent& event : answer.events()) tokens += event.name == "tokens" ? 1 : 0;
  EXPECT_GT(tokens, 1u) << "not all at the end";
  EXPECT_EQ(answer.events().back().name, "finished");
}

TEST_F(JobsTest, CancelledAndFailedJobsSayWhy) {
  inference_.set({.between = 5ms, .endless = true});
  const std::string cancelled = submit(R"({"prompt":"a","max_tokens":4000})");
  wait_for(cancelled, "running");
  EXPECT_EQ(client().request("DELETE /v1/jobs/" + cancelled + " HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  EXPECT_EQ(wait_for(cancelled, "cancelled")["result"], nullptr);
  EXPECT_TRUE(eventually([&] { return inference_.cancelled == 1; }));
  inference_.set({.fail_at_end = Error{ErrorCode::kWorkerLost, "a worker died", ""}});
  const std::string failed = submit(R"({"prompt":"a"})");
  EXPECT_EQ(wait_for(failed, "failed")["error"]["code"], "worker_lost");
}

TEST_F(JobsTest, WhatAJobCannotDoIsRefused) {
  for (const char* body : {R"({"prompt":"a","n":2})", R"({"prompt":["a","b"]})", R"({"prompt":"a","stream":true})",
                           R"({"prompt":5})", "{", "{}"})
    EXPECT_EQ(post("/v1/jobs", body).status, 400) << body;
  EXPECT_EQ(get("/v1/jobs/job-none").error_code(), "not_found");
  EXPECT_EQ(get("/v1/jobs/job-none/events").status, 404);
  EXPECT_EQ(get("/v1/jobs/job-none/trace").status, 404);
  EXPECT_EQ(post("/v1/jobs", R"({"prompt":"a"})", "Idempotency-Key: " + std::string(300, 'k') + "\r\n").status, 400);
}

}  // namespace

TEST_F(GatewayTest, WithoutAJobStoreTheRoutesSaySo) {
  EXPECT_EQ(post("/v1/jobs", R"({"prompt":"a"})").error_code(), "unsupported_parameter");
  EXPECT_EQ(get("/v1/jobs/x").status, 400);
}

}  // namespace runahead
