// /v1/jobs over the real JobService and a store in memory.
#include <boost/asio/detached.hpp>
#include <filesystem>
#include <fstream>

#include "tests/services/gateway/jobs_fixture.h"

namespace runahead {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class JobsTest : public KeepingTest {
 protected:
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

TEST_F(JobsTest, LogProbabilitiesOfThePromptAreRefusedWithTheWayOut) {
  const RawAnswer answer = post("/v1/jobs", R"({"prompt":"ab","echo":true,"logprobs":1})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json()["error"]["param"], "logprobs");
  EXPECT_NE(answer.json()["error"]["message"].get<std::string>().find("/v1/completions"), std::string::npos);
}

TEST_F(JobsTest, ListIsNewestFirstBoundedAndByPages) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(submit(R"({"prompt":"a","max_tokens":3})"));
  for (const std::string& id : ids) wait_for(id, "succeeded");
  EXPECT_EQ(inference_.requests().back().deadline, Duration(limits::kJobDeadline)) << "not that of a request";
  const json all = get("/v1/jobs").json();
  ASSERT_EQ(all["data"].size(), 5u);
  EXPECT_EQ(all["data"][0]["id"], ids[4]);
  EXPECT_EQ(all["has_more"], false);
  const json row = all["data"][0];
  EXPECT_EQ(row["endpoint"], "completions");
  EXPECT_EQ(row["completion_tokens"], 3);
  EXPECT_EQ(row["prompt_tokens"], 1);
  EXPECT_EQ(row["result"], nullptr);
  const json page = get("/v1/jobs?limit=2").json();
  EXPECT_EQ(page["data"].size(), 2u);
  EXPECT_EQ(page["has_more"], true);
  EXPECT_EQ(page["first_id"], ids[4]);
  EXPECT_EQ(page["last_id"], ids[3]);
  const json last = get("/v1/jobs?after=" + ids[1] + "&limit=2").json();
  EXPECT_EQ(last["data"].size(), 1u);
  EXPECT_EQ(last["data"][0]["id"], ids[0]);
  EXPECT_EQ(last["has_more"], false);
  EXPECT_EQ(get("/v1/jobs?after=job-none").status, 404);
  EXPECT_EQ(get("/v1/jobs?after=a%00b").status, 404);
  EXPECT_EQ(get("/v1/jobs?limit=%32&").json()["data"], page["data"]);
  EXPECT_EQ(get("/v1/jobs?").status, 200);
  for (const char* query : {"?limit=0", "?limit=1001", "?limit=x", "?limit=", "?other=1", "?limit=1&x=2", "?after=",
                            "?limit=1&limit=2", "?after", "?&", "?limit=+5", "?=5", "?limit=5&&", "?after=%zz"})
    EXPECT_EQ(get(std::string("/v1/jobs") + query).status, 400) << query;
}

TEST_F(JobsTest, SameIdempotencyKeyGivesTheSameJob) {
  const std::string first = submit(R"({"prompt":"a","max_tokens":3})", "Idempotency-Key: k1\r\n");
  wait_for(first, "succeeded");
  EXPECT_EQ(submit(R"({"prompt":"a","max_tokens":3})", "Idempotency-Key: k1\r\n"), first);
  EXPECT_EQ(submit(R"({ "max_tokens": 3, "prompt": "a" })", "Idempotency-Key: k1\r\n"), first)
      << "spaces and the order of keys make no other request";
  EXPECT_NE(submit(R"({"prompt":"a","max_tokens":3})", "Idempotency-Key: k2\r\n"), first);
  const RawAnswer other = post("/v1/jobs", R"({"prompt":"b","max_tokens":3})", "Idempotency-Key: k1\r\n");
  EXPECT_EQ(other.status, 422);
  EXPECT_EQ(other.error_code(), "idempotency_key_reused");
  EXPECT_EQ(other.json()["error"]["param"], "Idempotency-Key");
  EXPECT_NE(other.body.find(first), std::string::npos) << "it names the first job";
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

// tests/chaos found a coordinator that took 45 s to end after SIGTERM: it waited for the readers of jobs that waited for its
// next start.
TEST_F(JobsTest, EventsEndWithTheServiceThoughTheJobDoesNot) {
  inference_.set({.refuse = Error{ErrorCode::kUnavailable, "the cluster is shutting down"}});
  const std::string id = submit(R"({"prompt":"a"})");
  inference_.set({.refuse = Error{ErrorCode::kUnavailable, "the cluster is shutting down"}, .draining = true});
  std::atomic<bool> answered = false;
  std::thread rescue([&] {  // of a stream that does not end: then the job does
    for (int i = 0; i < 50 && !answered; ++i) std::this_thread::sleep_for(100ms);
    if (!answered) inference_.set({});
  });
  const RawAnswer answer = get("/v1/jobs/" + id + "/events");
  answered = true;
  rescue.join();
  EXPECT_EQ(answer.status, 200);
  for (const SseEvent& event : answer.events()) EXPECT_NE(event.name, "finished") << "it goes on";
}

TEST_F(JobsTest, EventsOfARunningJobComeAsTheyHappen) {
  inference_.set({.text = "abcdef", .before_first = 250ms, .between = 20ms, .progress = true});
  const std::string id = submit(R"({"prompt":"a"})");
  const RawAnswer answer = get("/v1/jobs/" + id + "/events");
  EXPECT_NE(answer.body.find(": ping\n\n"), std::string::npos);
  size_t tokens = 0;
  for (const SseEvent& event : answer.events()) tokens += event.name == "tokens" ? 1 : 0;
  EXPECT_GT(tokens, 1u) << "not all at the end";
  const json progress = json::parse(answer.events().front().data);
  EXPECT_EQ(answer.events().front().name, "progress");
  EXPECT_EQ(progress["fraction"], 0.5);
  EXPECT_EQ(progress["workers"], json::parse(R"([{"rank":0,"fraction":1.0},{"rank":1,"fraction":0.0}])"));
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

TEST_F(JobsTest, OpenApiDescribesEveryRouteAndNoOther) {
  EXPECT_EQ(answered_routes(), described_routes()) << "those of a service without jobs: gateway_test.cc";
}

TEST_F(JobsTest, WhatAJobCannotDoIsRefused) {
  for (const char* body : {R"({"prompt":"a","n":2})", R"({"prompt":["a","b"]})", R"({"prompt":"a","stream":true})",
                           R"({"prompt":5})", "{", "{}"})
    EXPECT_EQ(post("/v1/jobs", body).status, 400) << body;
  EXPECT_EQ(get("/v1/jobs/job-none").error_code(), "not_found");
  EXPECT_EQ(get("/v1/jobs/job-none/events").status, 404);
  EXPECT_EQ(post("/v1/jobs", R"({"prompt":"a"})", "Idempotency-Key: " + std::string(300, 'k') + "\r\n").status, 400);
}

// A service with keys: a job belongs to the key that submitted it.
class OwnedJobsTest : public JobsTest {
 protected:
  void SetUp() override {
    std::ofstream(keys_) << "alice-key\nbob-key\n";
    options_.api_keys_file = keys_;
    JobsTest::SetUp();
  }
  void TearDown() override {
    JobsTest::TearDown();
    std::filesystem::remove(keys_);
  }
  static std::string as(const std::string& name) { return "Authorization: Bearer " + name + "-key\r\n"; }

  const std::string keys_ = ::testing::TempDir() + "/keys-" + std::to_string(getpid());
};

TEST_F(OwnedJobsTest, AnotherKeysJobsAndIdempotencyKeysAreItsOwn) {
  const std::string key = "Idempotency-Key: k1\r\n";
  const std::string hers = submit(R"({"prompt":"a"})", key + as("alice"));
  const std::string his = submit(R"({"prompt":"b"})", key + as("bob"));
  EXPECT_NE(hers, his) << "the same key of another owner is another key";
  EXPECT_EQ(submit(R"({"prompt":"a"})", key + as("alice")), hers);
  EXPECT_EQ(post("/v1/jobs", R"({"prompt":"b"})", key + as("alice")).status, 422);
  EXPECT_EQ(get("/v1/jobs/" + hers, as("alice")).status, 200);
  for (const std::string& path : {"/v1/jobs/" + hers, "/v1/jobs/" + hers + "/events", "/v1/jobs?after=" + hers})
    EXPECT_EQ(get(path, as("bob")).status, 404) << path;
  EXPECT_EQ(client().request("DELETE /v1/jobs/" + hers + " HTTP/1.1\r\nHost: x\r\n" + as("bob") + "\r\n").status, 404);
  const json list = get("/v1/jobs", as("bob")).json()["data"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["id"], his);
}

}  // namespace

TEST_F(GatewayTest, WithoutAJobStoreTheRoutesSaySo) {
  EXPECT_EQ(post("/v1/jobs", R"({"prompt":"a"})").error_code(), "unsupported_parameter");
  EXPECT_EQ(get("/v1/jobs/x").status, 400);
}

}  // namespace runahead
