// Drives CoordinatorCore by hand: workers are what the test says they are, time is what the test says it is.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <map>

#include "actors/coordinator/coordinator_core.h"
#include "base/limits.h"

namespace runahead::test {

using namespace std::chrono_literals;

struct RecordingSink final : CoordinatorSink {
  void request_finished(const RequestRecord& record) override { finished.push_back(record); }
  void first_token(const TtftReport& report) override { ttft.push_back(report); }
  void rank_finished(const RankRecord& record, std::string_view) override { ranks.push_back(record); }
  void attempt_failed(ErrorCode code) override { failures.push_back(code); }
  void queue_changed(const QueueGauges& gauges) override { queue = gauges; }

  std::vector<ErrorCode> failures;
  std::vector<RequestRecord> finished;
  std::vector<TtftReport> ttft;
  std::vector<RankRecord> ranks;
  QueueGauges queue;
};

class CoreDriver {
 public:
  static constexpr uint64_t kEpoch = 3;
  static constexpr int32_t kLayers = 2, kVocab = 100, kContext = 4096;

  static ModelShape shape() {
    return {.architecture = "test",
            .num_layers = kLayers,
            .model_dim = 64,
            .num_heads = 1,
            .num_kv_heads = 1,
            .head_dim = 64,
            .ffn_dim = 128,
            .vocab_size = kVocab,
            .context_len = kContext};
  }
  static constexpr size_t kPageBytes = 64;

  explicit CoreDriver(TestFaults faults = {}, std::string model = {}, SpeedMemory speeds = {}, bool prefix_cache = true,
                      Duration queue_wait = limits::kQueueWait)
      : core({.epoch = kEpoch,
              .shape = shape(),
              .model = std::move(model),
              .speeds = std::move(speeds),
              .prefix_cache = prefix_cache,
              .queue_wait = queue_wait,
              .faults = faults},
             rng, sink) {}

  static proto::Envelope hello(bool is_prefill, uint64_t incarnation, int64_t pages = 4096) {
    proto::Envelope message;
    proto::Hello& hello = *message.mutable_hello();
    hello.set_protocol_version(kMessagesVersion);
    hello.set_role(is_prefill ? proto::Hello::PREFILL : proto::Hello::DECODE);
    hello.set_incarnation(incarnation);
    hello.set_fingerprint("model-a");
    hello.set_kv_transport("memory");
    hello.set_kv_address("kv-" + std::to_string(incarnation));
    hello.set_pages_total(pages);
    hello.set_page_bytes(kPageBytes);
    hello.set_num_layers(kLayers);
    hello.set_context_len(kContext);
    hello.set_name("w" + std::to_string(incarnation));
    hello.set_attempts_max(4);
    return message;
  }

  // The peer's number is its incarnation too. What it was answered is in `inbox`.
  void join(PeerId peer, bool is_prefill, int64_t pages = 4096) { join(peer, hello(is_prefill, peer, pages)); }
  void join(PeerId peer, const proto::Envelope& message) {
    core.on_connected(peer, now);
    core.on_message(peer, message, now);
    settle();
  }

  void settle() {
    take();
    while (core.start_next(now)) {
      take();
      core.dispatched(now);
    }
    take();
  }
  void from(PeerId peer, const proto::Envelope& message) {
    core.on_message(peer, message, now);
    settle();
  }
  void tick(Duration passed) {
    now += passed;
    core.on_tick(now);
    settle();
  }
  // Time passes with all of `alive` sending heartbeats.
  void pass(Duration time, std::vector<PeerId> alive) {
    for (Duration done{0}; done < time; done += 250ms) {
      for (const PeerId peer : alive) {
        proto::Envelope message = envelope({.epoch = kEpoch});
        message.mutable_heartbeat()->set_running(1);
        core.on_message(peer, message, now);
      }
      tick(250ms);
    }
  }

  // No two prompts begin alike.
  Result<RequestId> submit(int32_t prompt_len, int32_t max_new_tokens, Duration deadline = 60s) {
    InferenceRequest request{.external_id = "r",
                             .prompt = std::vector<TokenId>(static_cast<size_t>(prompt_len), ++last_token_ % kVocab),
                             .max_new_tokens = max_new_tokens,
                             .deadline = deadline};
    return submit(std::move(request));
  }
  Result<RequestId> submit(InferenceRequest request) {
    Result<RequestId> id = core.submit(std::move(request), now);
    settle();
    return id;
  }

  // Messages of workers.
  static proto::Envelope about(uint64_t request, uint32_t attempt) { return envelope({kEpoch, request, attempt}); }
  static proto::Envelope first_token(uint64_t request, uint32_t attempt, TokenId token) {
    proto::Envelope message = about(request, attempt);
    message.mutable_first_token()->mutable_token()->set_id(token);
    message.mutable_first_token()->mutable_timing()->set_total_seconds(0.001);
    return message;
  }
  static proto::Envelope tokens(uint64_t request, uint32_t attempt, uint32_t first_index, std::vector<TokenId> ids) {
    proto::Envelope message = about(request, attempt);
    message.mutable_token_batch()->set_first_index(first_index);
    for (const TokenId id : ids) message.mutable_token_batch()->add_tokens()->set_id(id);
    return message;
  }
  static proto::Envelope rank_done(uint64_t request, uint32_t attempt, uint32_t rank, int32_t kept = 0) {
    proto::Envelope message = about(request, attempt);
    message.mutable_rank_done()->set_kept_pages(kept);
    message.mutable_rank_done()->set_rank(rank);
    message.mutable_rank_done()->mutable_timing()->set_compute_seconds(0.5);
    return message;
  }
  static proto::Envelope prompt_kept(uint64_t request, uint32_t attempt, int32_t kept) {
    proto::Envelope message = about(request, attempt);
    message.mutable_prompt_kept()->set_kept_pages(kept);
    return message;
  }
  static proto::Envelope decode_done(uint64_t request, uint32_t attempt, int32_t kept = 0) {
    proto::Envelope message = about(request, attempt);
    message.mutable_decode_done()->set_kept_pages(kept);
    return message;
  }
  static proto::Envelope failed(uint64_t request, uint32_t attempt, ErrorCode code, WorkerId blamed = 0) {
    proto::Envelope message = about(request, attempt);
    encode(Failure{{code, "it failed"}, blamed}, *message.mutable_attempt_failed()->mutable_failure());
    return message;
  }
  static proto::Envelope ended(uint64_t request, uint32_t attempt, int32_t kept = 0) {
    proto::Envelope message = about(request, attempt);
    message.mutable_attempt_ended()->set_kept_pages(kept);
    return message;
  }

  // The last message of this kind that a peer was sent.
  const proto::Envelope* last(PeerId peer, proto::Envelope::BodyCase kind) const {
    const auto found = inbox.find(peer);
    if (found == inbox.end()) return nullptr;
    for (auto it = found->second.rbegin(); it != found->second.rend(); ++it)
      if (it->body_case() == kind) return &*it;
    return nullptr;
  }
  std::vector<TokenId> answer(RequestId id) const {
    const auto found = answers.find(id);
    return found == answers.end() ? std::vector<TokenId>{} : found->second;
  }
  int64_t held(PeerId peer) {
    const ClusterView view = core.view(now);
    for (const WorkerView& worker : view.workers)
      if (worker.name == "w" + std::to_string(peer)) return worker.running;
    return -1;
  }

  SeededRng rng{1};
  RecordingSink sink;
  CoordinatorCore core;
  Time now{1s};
  std::map<PeerId, std::vector<proto::Envelope>> inbox;
  std::vector<PeerId> dropped;
  TokenId last_token_ = 6;
  std::map<RequestId, std::vector<TokenId>> answers;
  std::map<RequestId, std::vector<SampledToken>> prompts;
  std::map<RequestId, FinishedEvent> finished;
  std::map<RequestId, Error> errors;

 private:
  void take() {
    for (CoordinatorAction& action : core.take_actions()) {
      if (auto* send = std::get_if<SendTo>(&action)) inbox[send->peer].push_back(send->message);
      if (auto* drop = std::get_if<DropPeer>(&action)) dropped.push_back(drop->peer);
      if (auto* end = std::get_if<EndStream>(&action)) errors.emplace(end->request, end->error);
      if (auto* emit = std::get_if<EmitEvent>(&action)) on_event(emit->request, emit->event);
    }
  }
  void on_event(RequestId id, const StreamEvent& event) {
    EXPECT_FALSE(finished.contains(id)) << "nothing follows the end";
    if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
      EXPECT_TRUE(answers[id].empty() && prompts.emplace(id, prompt->tokens).second) << "once, before the first token";
    }
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      EXPECT_EQ(static_cast<size_t>(tokens->first_index), answers[id].size());
      for (const SampledToken& token : tokens->tokens) answers[id].push_back(token.token);
    }
    if (const auto* end = std::get_if<FinishedEvent>(&event)) finished.emplace(id, *end);
  }
};

// Peers 1 and 2 prefill, 9 decodes.
struct Three : CoreDriver {
  explicit Three(TestFaults faults = {}) : CoreDriver(faults) {
    join(1, true);
    join(2, true);
    join(9, false);
  }
  // A request whose chain is peers 1 and 2.
  RequestId start(int32_t max_new_tokens = 3) {
    InferenceRequest request{
        .prompt = std::vector<TokenId>(256, 7), .max_new_tokens = max_new_tokens, .strategy = Strategy::kEven};
    return *submit(std::move(request));
  }
  void finish(RequestId id, uint32_t attempt, std::vector<TokenId> rest) {
    from(1, rank_done(id, attempt, 0));
    from(2, first_token(id, attempt, rest.front()));
    from(2, rank_done(id, attempt, 1));
    from(9, tokens(id, attempt, 1, {rest.begin() + 1, rest.end()}));
    from(9, decode_done(id, attempt));
  }
};

}  // namespace runahead::test
