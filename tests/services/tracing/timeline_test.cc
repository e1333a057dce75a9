// A request's timeline: what the coordinator saw, each rank's part, and K/V from one to the next; sound whatever is reported.
#include "services/tracing/timeline.h"

#include <random>

#include "tests/services/tracing/trace_checks.h"

namespace runahead {
namespace {

TracedRequest chain_of_two() {
  TtftReport report{.ttft_seconds = 0.51, .predicted_ttft_seconds = 0.4};
  report.stages[TtftStage::kTokenize] = 0.002;
  report.marks = {.submitted = 0.01,
                  .plan_started = 0.1,
                  .dispatched = 0.11,
                  .first_token = 0.5,
                  .written = 0.51,
                  .second_token = 0.53};
  report.decode_worker = "d";
  report.ranks = {{.rank = 0,
                   .worker = "a",
                   .chunk = {0, 128},
                   .compute_seconds = 0.3,
                   .kv_sent_bytes = 1000,
                   .total_seconds = 0.33,
                   .kv_send_seconds = 0.25,
                   .worked_at_seconds = 0.45,
                   .sent_at_seconds = 0.45},
                  {.rank = 1,
                   .worker = "b",
                   .chunk = {128, 200},
                   .compute_seconds = 0.2,
                   .kv_wait_seconds = 0.1,
                   .kv_sent_bytes = 3000,
                   .lane_wait_seconds = 0.05,
                   .sample_seconds = 0.01,
                   .total_seconds = 0.38,
                   .kv_send_seconds = 0.2,
                   .worked_at_seconds = 0.5,
                   .sent_at_seconds = 0.52}};
  return {.id = "cmpl-1",
          .kind = "completions",
          .model = "toy",
          .status = "succeeded",
          .elapsed_seconds = 0.6,
          .prompt_tokens = 200,
          .completion_tokens = 5,
          .report = report};
}

const Span* find(const Timeline& timeline, size_t process, const std::string& name) {
  for (const Span& span : timeline.spans)
    if (span.process == process && span.name == name) return &span;
  return nullptr;
}

TEST(Timeline, StagesFollowEachOtherFromTheFirstByteToTheEnd) {
  const Timeline timeline = timeline_of(chain_of_two());
  double at = 0;
  for (const char* stage : {"receive", "tokenize", "queue", "plan", "prefill", "respond", "answer"}) {
    const Span* span = find(timeline, 0, stage);
    ASSERT_NE(span, nullptr) << stage;
    EXPECT_DOUBLE_EQ(span->begin, at) << stage;
    at = span->end;
  }
  EXPECT_DOUBLE_EQ(at, 0.6);
  EXPECT_DOUBLE_EQ(find(timeline, 0, "respond")->end, 0.51) << "the time to first token";
}

TEST(Timeline, EachRankHasItsPartsAndAnArrowToTheNext) {
  const Timeline timeline = timeline_of(chain_of_two());
  ASSERT_EQ(timeline.processes.size(), 4u);
  EXPECT_EQ(timeline.processes[2].name, "rank 1: b");
  EXPECT_EQ(timeline.processes[3].name, "decode: d");
  const Span* rank = find(timeline, 2, "rank 1");
  ASSERT_NE(rank, nullptr);
  EXPECT_NEAR(rank->begin, 0.12, 1e-12);
  EXPECT_EQ(rank->end, 0.5);
  double at = rank->begin;
  for (const auto& [part, took] :
       {std::pair("lane_wait", 0.05), {"prefill_compute", 0.2}, {"kv_wait", 0.1}, {"sample", 0.01}}) {
    const Span* span = find(timeline, 2, part);
    ASSERT_NE(span, nullptr) << part;
    EXPECT_TRUE(span->is_sum);
    EXPECT_NEAR(span->begin, at, 1e-12);
    EXPECT_NEAR(span->end - span->begin, took, 1e-12);
    at = span->end;
  }
  EXPECT_EQ(find(timeline, 1, "kv_wait"), nullptr) << "what took no time is not drawn";
  EXPECT_NEAR(find(timeline, 3, "first_decode")->end, 0.53, 1e-12);
  ASSERT_EQ(timeline.flows.size(), 2u);
  EXPECT_EQ(timeline.spans[timeline.flows[0].to].name, "rank 1");
  EXPECT_EQ(timeline.spans[timeline.flows[1].to].name, "kv_receive");
  EXPECT_EQ(timeline.flows[1].bytes, 3000u);
  expect_sound(chrome_trace(chain_of_two()));
}

TEST(Timeline, WhatHasNoReportIsOneSpan) {
  TracedRequest request = chain_of_two();
  request.report.reset();
  request.error = Error{ErrorCode::kCancelled, "gone", ""};
  const Timeline timeline = timeline_of(request);
  ASSERT_EQ(timeline.spans.size(), 1u);
  EXPECT_EQ(timeline.spans[0].attributes["runahead.error"], "cancelled");
  expect_sound(chrome_trace(request));
}

TEST(Timeline, ARankThatNeverReportedIsLeftOut) {
  TracedRequest request = chain_of_two();
  request.report->ranks[0] = {.rank = 0, .worker = "a", .chunk = {0, 128}};
  const Timeline timeline = timeline_of(request);
  EXPECT_EQ(find(timeline, 1, "rank 0"), nullptr);
  EXPECT_EQ(timeline.flows.size(), 1u);
  expect_sound(chrome_trace(request));
}

// Workers' clocks run as they like, and a report may be what a stranger says within its bounds.
TEST(Timeline, IsSoundWhateverTheReportsSay) {
  std::mt19937_64 random(7);
  const auto any = [&] { return std::pow(10, std::uniform_real_distribution<double>(-6, 6)(random)) - 1e-6; };
  for (int round = 0; round < 500; ++round) {
    TracedRequest request = chain_of_two();
    request.elapsed_seconds = any();
    RequestMarks& marks = request.report->marks;
    for (double* mark : {&marks.submitted, &marks.plan_started, &marks.dispatched, &marks.first_token, &marks.written,
                         &marks.second_token})
      *mark = any();
    for (RankReport& rank : request.report->ranks)
      for (double* value : {&rank.compute_seconds, &rank.kv_wait_seconds, &rank.lane_wait_seconds, &rank.sample_seconds,
                            &rank.total_seconds, &rank.kv_send_seconds, &rank.worked_at_seconds, &rank.sent_at_seconds})
        *value = any();
    expect_sound(chrome_trace(request));
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace runahead
