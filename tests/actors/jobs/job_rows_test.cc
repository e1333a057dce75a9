// Rows of jobs: what is written is read, and what nobody wrote is kCorrupt or within bounds.
#include "actors/jobs/job_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/limits.h"
#include "base/rng.h"
#include "proto/job.pb.h"

namespace runahead::test {
namespace {

using namespace std::chrono_literals;

InferenceRequest a_request() {
  return {
      .external_id = "x",
      .prompt = {1, 2},
      .max_new_tokens = 5,
      .sampling = {.temperature = 0.1f, .logit_bias = {{3, 0.25f}}, .banned = {2}, .banned_before = 9, .seed = ~0ull},
      .stop_tokens = {9},
      .strategy = Strategy::kByHand,
      .cuts = {64},
      .workers_max = 3,
      .cache_salt = "salt",
      .deadline = 7s};
}

StoredResult a_result() {
  StoredResult result{
      .tokens = {{.token = 4, .logprob = -0.5f, .top = {{.token = 7, .logprob = -0.25f}}}, {.token = 1}}};
  FinishedEvent& finished = result.finished.emplace(FinishedEvent{.reason = FinishReason::kLength, .total_seconds = 3});
  for (const TtftStage stage : kTtftStages) finished.report.stages[stage] = 0.1 * static_cast<int>(stage);
  finished.report.ttft_seconds = 0.1;
  finished.report.predicted_ttft_seconds = 0.2;
  finished.report.strategy = Strategy::kByHand;
  finished.report.cuts = {64};
  finished.report.ranks = {{.worker = "a",
                            .device = "cpu",
                            .chunk = {0, 64},
                            .compute_seconds = 1,
                            .kv_sent_bytes = 9,
                            .kv_wire_seconds = 0.25,
                            .lane_wait_seconds = 0.5,
                            .sample_seconds = 0.125,
                            .total_seconds = 4,
                            .kv_send_seconds = 3,
                            .kv_received_bytes = 11,
                            .worked_at_seconds = 5,
                            .sent_at_seconds = 6},
                           {.rank = 1, .worker = "b", .device = "cpu", .chunk = {64, 100}, .kv_wait_seconds = 2}};
  finished.report.first_logits_sha256 = "00ff";
  finished.report.transport = "tcp, ucx";
  finished.report.compute = "exact";
  finished.report.attempts = 2;
  finished.report.cached_tokens = 128;
  finished.report.cache_write_tokens = 64;
  finished.report.marks = {
      .submitted = 1, .plan_started = 2, .dispatched = 3, .first_token = 4, .written = 5, .second_token = 6};
  finished.report.decode_worker = "d";
  return result;
}

TEST(JobRows, ARequestComesBackAsItWas) {
  const InferenceRequest request = a_request();
  const auto back = parse_stored_request(serialize(request));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->external_id, "x");
  EXPECT_EQ(back->prompt, request.prompt);
  EXPECT_EQ(back->max_new_tokens, 5);
  EXPECT_EQ(back->sampling.temperature, 0.1f);
  EXPECT_EQ(back->sampling.seed, ~0ull);
  EXPECT_EQ(back->sampling.banned, request.sampling.banned);
  EXPECT_EQ(back->sampling.banned_before, 9);
  EXPECT_EQ(back->sampling.logit_bias, request.sampling.logit_bias);
  EXPECT_EQ(back->sampling.top_logprobs, -1);
  EXPECT_EQ(back->stop_tokens, request.stop_tokens);
  EXPECT_EQ(back->strategy, Strategy::kByHand);
  EXPECT_EQ(back->cuts, request.cuts);
  EXPECT_EQ(back->workers_max, 3);
  EXPECT_EQ(back->cache_salt, "salt");
  EXPECT_EQ(back->deadline, Duration(7s));
}

TEST(JobRows, AResultComesBackAsItWas) {
  const StoredResult result = a_result();
  const auto back = parse_stored_result(serialize(result));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->tokens, result.tokens);
  ASSERT_TRUE(back->finished);
  EXPECT_EQ(back->finished->reason, FinishReason::kLength);
  EXPECT_EQ(back->finished->generated, 2);
  EXPECT_EQ(back->finished->total_seconds, 3);
  const TtftReport &report = back->finished->report, &was = result.finished->report;
  for (const TtftStage stage : kTtftStages) EXPECT_EQ(report.stages[stage], was.stages[stage]) << name(stage);
  EXPECT_EQ(report.ttft_seconds, 0.1);
  EXPECT_EQ(report.predicted_ttft_seconds, 0.2);
  EXPECT_EQ(report.strategy, Strategy::kByHand);
  EXPECT_EQ(report.cuts, was.cuts);
  ASSERT_EQ(report.ranks.size(), 2u);
  EXPECT_EQ(report.ranks[0].worker + report.ranks[1].device, "acpu");
  EXPECT_EQ(report.ranks[0].kv_sent_bytes, 9u);
  EXPECT_EQ(report.ranks[0].kv_wire_seconds, 0.25);
  EXPECT_EQ(report.ranks[0].lane_wait_seconds, 0.5);
  EXPECT_EQ(report.ranks[0].sample_seconds, 0.125);
  EXPECT_EQ(report.ranks[0].total_seconds, 4);
  EXPECT_EQ(report.ranks[0].kv_send_seconds, 3);
  EXPECT_EQ(report.ranks[0].kv_received_bytes, 11u);
  EXPECT_EQ(report.ranks[0].worked_at_seconds, 5);
  EXPECT_EQ(report.ranks[0].sent_at_seconds, 6);
  EXPECT_EQ(report.decode_worker, "d");
  EXPECT_EQ(report.marks.submitted, 1);
  EXPECT_EQ(report.marks.plan_started, 2);
  EXPECT_EQ(report.marks.dispatched, 3);
  EXPECT_EQ(report.marks.first_token, 4);
  EXPECT_EQ(report.marks.written, 5);
  EXPECT_EQ(report.marks.second_token, 6);
  EXPECT_EQ(report.ranks[0].compute_seconds, 1);
  EXPECT_EQ(report.ranks[1].kv_wait_seconds, 2);
  EXPECT_EQ(report.ranks[1].rank, 1);
  EXPECT_EQ(report.ranks[1].chunk, (TokenRange{64, 100}));
  EXPECT_EQ(report.first_logits_sha256, "00ff");
  EXPECT_EQ(report.transport + report.compute, "tcp, ucxexact");
  EXPECT_EQ(report.cached_tokens, 128);
  EXPECT_EQ(report.cache_write_tokens, 64);
  EXPECT_EQ(report.attempts, 2u);
}

TEST(JobRows, AJobThatFailedBeforeItsFirstTokenHasARowAllTheSame) {
  const std::string row = serialize(StoredResult{});
  EXPECT_FALSE(row.empty()) << "an empty one means that the job has not ended";
  const auto back = parse_stored_result(row);
  ASSERT_TRUE(back);
  EXPECT_TRUE(back->tokens.empty());
  EXPECT_FALSE(back->finished);
}

TEST(JobRows, WhatAWorkerSaidOfItselfIsWrittenWhateverItsBytes) {
  StoredResult result{.tokens = {{.token = 4, .logprob = -std::numeric_limits<float>::infinity()}}};
  result.finished = FinishedEvent{.reason = FinishReason::kLength};
  result.finished->report.ranks.push_back({.worker = "caf\xe9"});
  const auto back = parse_stored_result(serialize(result));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->tokens[0].logprob, -9999) << "as on the wire";
  EXPECT_EQ(back->finished->report.ranks[0].worker, "caf\xe9");
}

TEST(JobRows, RubbishIsCorrupt) {
  for (const std::string bytes : {"", "{", "[]", "null", "{\"prompt\":3}", "\xff\xff\xff\xff"}) {
    EXPECT_EQ(parse_stored_request(bytes).error().code, ErrorCode::kCorrupt) << bytes;
    EXPECT_EQ(parse_stored_result(bytes).error().code, ErrorCode::kCorrupt) << bytes;
  }
}

TEST(JobRows, NoRequestOutOfBoundsIsRead) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::function<void(proto::StoredRequest&)>> changes = {
      [](auto& r) { r.clear_prompt(); },
      [](auto& r) { r.add_prompt(-1); },
      [](auto& r) { r.add_prompt(limits::kVocabMax); },
      [](auto& r) { r.set_max_new_tokens(0); },
      [](auto& r) { r.clear_sampling(); },  // top_p 0
      [](auto& r) { r.mutable_sampling()->set_temperature(kNan); },
      [](auto& r) { r.mutable_sampling()->set_frequency_penalty(INFINITY); },
      [](auto& r) { r.mutable_sampling()->set_top_logprobs(limits::kTopLogprobsMax + 1); },
      [](auto& r) { r.mutable_sampling()->add_banned(-1); },
      [](auto& r) { r.mutable_sampling()->add_logit_bias()->set_bias(kNan); },
      [](auto& r) {
        for (int i = 0; i < limits::kLogitBiasMax; ++i) r.mutable_sampling()->add_logit_bias();
      },
      [](auto& r) { r.add_stop_tokens(-1); },
      [](auto& r) { r.mutable_stop_tokens()->Resize(limits::kBannedTokensMax + 1, 0); },
      [](auto& r) { r.clear_strategy(); },
      [](auto& r) { r.set_strategy(static_cast<proto::Strategy>(9)); },
      [](auto& r) { r.add_cuts(0); },
      [](auto& r) { r.mutable_cuts()->Resize(limits::kWorkersMax, 64); },
      [](auto& r) { r.set_workers_max(limits::kWorkersMax + 1); },
      [](auto& r) { r.set_deadline_ns(-1); }};
  for (size_t i = 0; i < changes.size(); ++i) {
    proto::StoredRequest stored;
    ASSERT_TRUE(stored.ParseFromString(serialize(a_request())));
    changes[i](stored);
    const auto back = parse_stored_request(stored.SerializeAsString());
    EXPECT_TRUE(!back && back.error().code == ErrorCode::kCorrupt) << "change " << i;
  }
}

TEST(JobRows, NoResultOutOfBoundsIsRead) {
  const std::vector<std::function<void(proto::StoredResult&)>> changes = {
      [](auto& r) { r.clear_end(); },
      [](auto& r) { r.set_end(static_cast<proto::StoredResult::End>(9)); },
      [](auto& r) { r.set_total_seconds(NAN); },
      [](auto& r) { r.mutable_tokens(0)->set_id(-1); },
      [](auto& r) { r.mutable_tokens(0)->set_logprob(-INFINITY); },
      [](auto& r) { r.mutable_tokens(0)->mutable_top(0)->set_token(limits::kVocabMax); },
      [](auto& r) { r.mutable_tokens(0)->mutable_top(0)->set_logprob(NAN); },
      [](auto& r) {
        for (int i = 0; i < limits::kTopLogprobsMax; ++i) r.mutable_tokens(0)->add_top();
      },
      [](auto& r) { r.clear_report(); },
      [](auto& r) { r.mutable_report()->mutable_stage_seconds()->RemoveLast(); },
      [](auto& r) { r.mutable_report()->set_stage_seconds(2, NAN); },
      [](auto& r) { r.mutable_report()->set_ttft_seconds(INFINITY); },
      [](auto& r) { r.mutable_report()->set_predicted_ttft_seconds(NAN); },
      [](auto& r) { r.mutable_report()->clear_strategy(); },
      [](auto& r) { r.mutable_report()->add_cuts(-64); },
      [](auto& r) { r.mutable_report()->mutable_ranks(1)->set_rank(-1); },
      [](auto& r) { r.mutable_report()->mutable_ranks(1)->set_end(63); },
      [](auto& r) { r.mutable_report()->mutable_ranks(1)->set_compute_seconds(NAN); },
      [](auto& r) {
        for (int i = 0; i < limits::kWorkersMax; ++i) r.mutable_report()->add_ranks();
      }};
  for (size_t i = 0; i < changes.size(); ++i) {
    proto::StoredResult stored;
    ASSERT_TRUE(stored.ParseFromString(serialize(a_result())));
    changes[i](stored);
    const auto back = parse_stored_result(stored.SerializeAsString());
    EXPECT_TRUE(!back && back.error().code == ErrorCode::kCorrupt) << "change " << i;
  }
}

TEST(JobRows, CutAndFlippedRowsAreReadOrCorrupt) {
  SeededRng rng(7);
  for (const std::string& whole : {serialize(a_request()), serialize(a_result())}) {
    for (int round = 0; round < 20'000; ++round) {
      std::string bytes = whole.substr(0, rng.next() % (whole.size() + 1));
      for (uint64_t flips = rng.next() % 4; flips > 0 && !bytes.empty(); --flips)
        bytes[rng.next() % bytes.size()] ^= static_cast<char>(1 << rng.next() % 8);
      if (const auto request = parse_stored_request(bytes); request) {
        EXPECT_FALSE(request->prompt.empty());
      } else {
        EXPECT_EQ(request.error().code, ErrorCode::kCorrupt);
      }
      const auto result = parse_stored_result(bytes);
      EXPECT_TRUE(result || result.error().code == ErrorCode::kCorrupt);
    }
  }
}

}  // namespace
}  // namespace runahead::test
