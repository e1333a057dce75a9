// A cluster in one process for tests: the real coordinator and workers on one io_context, the memory transport, real
// lanes, and the hash engine as model (tests/sim/hash_engine.h: any page that is missing, wrong or out of order changes
// the tokens).
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <limits>
#include <new>

#include "actors/coordinator/coordinator.h"
#include "actors/worker/decode_worker.h"
#include "actors/worker/prefill_worker.h"
#include "actors/worker/thread_lane.h"
#include "hash_engine.h"
#include "model/sampler.h"
#include "transport/control/memory_control.h"
#include "transport/kv/memory_kv_transport.h"

namespace runahead::test {

struct Answer {
  std::vector<TokenId> tokens;
  std::optional<std::vector<SampledToken>> prompt;
  std::optional<FinishedEvent> finished;
  std::optional<Error> error;
  int progress_events = 0;
};

// What any cluster must answer: straight from the model's definition, without pages.
inline std::vector<TokenId> expected_tokens(const InferenceRequest& request) {
  std::vector<TokenId> context = request.prompt, generated;
  while (std::ssize(generated) < request.max_new_tokens) {
    std::vector<float> logits = test::hash_logits(context);
    const TokenId token =
        sample(logits, request.sampling, request.prompt, generated, static_cast<int32_t>(context.size())).token;
    if (std::ranges::count(request.stop_tokens, token) > 0) break;
    generated.push_back(token);
    context.push_back(token);
  }
  return generated;
}

inline InferenceRequest request_of(int32_t prompt_len, int32_t max_new_tokens, uint64_t seed = 1) {
  InferenceRequest request{.external_id = "test", .max_new_tokens = max_new_tokens};
  SeededRng rng(seed);
  for (int32_t i = 0; i < prompt_len; ++i)
    request.prompt.push_back(static_cast<TokenId>(rng.next() % test::kHashVocab));
  request.sampling = {.temperature = 1.0f, .seed = seed};
  return request;
}

// A model that can be made slow, so that a test can act in the middle of an attempt.
class SlowEngine final : public Engine {
 public:
  const ModelShape& shape() const override { return engine_.shape(); }
  size_t page_bytes() const override { return engine_.page_bytes(); }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& compute_name() const override { return engine_.compute_name(); }
  std::unique_ptr<Hidden> embed(std::span<const TokenId> tokens) override {
    take_memory();
    return engine_.embed(tokens);
  }
  int32_t rows_at_once() const override { return engine_.rows_at_once(); }
  void project_qkv(int32_t layer, Hidden& x, KvLease& kv, TokenRange chunk, RowRange rows) override {
    std::this_thread::sleep_for(layer_delay.load());
    engine_.project_qkv(layer, x, kv, chunk, rows);
  }
  void keep_last_row(Hidden& x) override { engine_.keep_last_row(x); }
  void attend(int32_t layer, Hidden& x, const KvLease& kv, TokenRange chunk, PageRange pages, RowRange rows) override {
    engine_.attend(layer, x, kv, chunk, pages, rows);
  }
  void finish_layer(int32_t layer, Hidden& x, RowRange rows) override { engine_.finish_layer(layer, x, rows); }
  void logits(Hidden& x, std::span<float> out) override {
    engine_.logits(x, out);
    if (overflows) out.back() = std::numeric_limits<float>::infinity();
  }
  Result<void> score_rows(Hidden& x, RowRange rows, std::span<const TokenId> next, int32_t top,
                          std::span<SampledToken> out) override {
    std::this_thread::sleep_for(score_delay.load());
    if (overflows) return fail(ErrorCode::kInvalidModel, "the model's numbers overflow");
    return engine_.score_rows(x, rows, next, top, out);
  }
  void decode(std::span<const DecodeRow> batch, std::span<float> out) override {
    std::this_thread::sleep_for(step_delay.load());
    take_memory();
    largest_batch = std::max(largest_batch.load(), batch.size());
    engine_.decode(batch, out);
    if (overflows) out.back() = std::numeric_limits<float>::quiet_NaN();  // of the last row
  }

  std::atomic<std::chrono::milliseconds> layer_delay{std::chrono::milliseconds(0)};
  std::atomic<std::chrono::milliseconds> score_delay{std::chrono::milliseconds(0)};
  std::atomic<std::chrono::milliseconds> step_delay{std::chrono::milliseconds(0)};
  std::atomic<size_t> largest_batch = 0;
  std::atomic<bool> overflows = false;
  std::atomic<int> no_memory_times = 0;  // embed() or decode() find none
  void set_fingerprint(std::string text) { fingerprint_ = std::move(text); }

 private:
  void take_memory() {
    if (no_memory_times == 0) return;
    --no_memory_times;
    throw std::bad_alloc();
  }
  test::HashEngine engine_;
  std::string fingerprint_ = engine_.fingerprint();
};

class HashCluster {
 public:
  // One process: engine, memory, lane, transport and the worker.
  struct Node {
    Node(HashCluster& cluster, bool is_prefill, int64_t pages, WorkerOptions options, const std::string& fingerprint);
    void stop() { prefill ? prefill->stop() : decode->stop(); }
    void drain() { prefill ? prefill->drain() : decode->drain(); }

    SlowEngine engine;
    KvPool pool;
    ThreadLane lane;
    SeededRng rng;
    std::unique_ptr<KvTransport> kv;
    std::unique_ptr<PrefillWorker> prefill;
    std::unique_ptr<DecodeWorker> decode;
    bool running = true;
    Result<void> ended;
  };

  explicit HashCluster(int prefill = 2, int decode = 1, CoordinatorOptions options = {}) {
    options.shape = test::HashEngine().shape();
    start_coordinator(options);
    for (int i = 0; i < prefill; ++i) add(true);
    for (int i = 0; i < decode; ++i) add(false);
    EXPECT_TRUE(run_until([&] { return coordinator->cluster().workers.size() == nodes.size(); }));
  }
  ~HashCluster() { shut_down(); }

  Node& add(bool is_prefill, int64_t pages = 4096, WorkerOptions options = {}, const std::string& fingerprint = {}) {
    options.name = (is_prefill ? "prefill-" : "decode-") + std::to_string(nodes.size());
    nodes.push_back(std::make_unique<Node>(*this, is_prefill, pages, options, fingerprint));
    return *nodes.back();
  }

  void start_coordinator(CoordinatorOptions options) {
    options.shape = test::HashEngine().shape();
    coordinator_options = options;
    coordinator_running = true;
    coordinator =
        std::make_unique<Coordinator>(CoordinatorEnv{io.get_executor(), clock, rng, hub.server(), metrics}, options);
    asio::co_spawn(io, coordinator->run(), [this](std::exception_ptr) { coordinator_running = false; });
  }
  void stop_coordinator() {
    coordinator->stop();
    EXPECT_TRUE(run_until([&] { return !coordinator_running; }));
  }
  void shut_down() {
    for (auto& node : nodes) node->stop();
    EXPECT_TRUE(run_until([&] { return std::ranges::none_of(nodes, [](auto& node) { return node->running; }); }));
    if (coordinator_running) stop_coordinator();
    coordinator.reset();
    for (auto& node : nodes) EXPECT_EQ(node->pool.usage().idle(), node->pool.usage().total);
  }

  // Runs the event loop until `condition` holds; false after `limit`.
  bool run_until(std::function<bool()> condition, Duration limit = std::chrono::seconds(20)) {
    const Time end = clock.now() + limit;
    while (!condition() && clock.now() < end) io.run_one_for(std::chrono::milliseconds(10));
    return condition();
  }
  bool pages_are_free() const {
    return std::ranges::all_of(nodes, [](auto& node) { return node->pool.usage().idle() == node->pool.usage().total; });
  }

  // Reads a whole answer in the background.
  std::shared_ptr<Answer> ask(InferenceRequest request) {
    auto answer = std::make_shared<Answer>();
    Result<std::shared_ptr<TokenStream>> stream = coordinator->submit(std::move(request));
    if (!stream) answer->error = stream.error();
    else asio::co_spawn(io, read(*stream, answer, clock), asio::detached);
    return answer;
  }
  std::shared_ptr<Answer> answer_to(InferenceRequest request) {
    auto answer = ask(std::move(request));
    EXPECT_TRUE(run_until([&] { return answer->finished || answer->error; }));
    return answer;
  }

  static asio::awaitable<void> read(std::shared_ptr<TokenStream> stream, std::shared_ptr<Answer> answer, Clock& clock) {
    for (;;) {
      Result<StreamEvent> event = co_await stream->next(clock.after(std::chrono::seconds(1)));
      if (!event) {
        if (event.error().code == ErrorCode::kDeadlineExceeded && !stream->ended()) continue;
        answer->error = event.error();
        co_return;
      }
      if (auto* prompt = std::get_if<PromptEvent>(&*event)) {
        EXPECT_TRUE(answer->tokens.empty() && !answer->prompt) << "once, before the first token";
        answer->prompt = std::move(prompt->tokens);
      } else if (auto* tokens = std::get_if<TokensEvent>(&*event)) {
        EXPECT_EQ(static_cast<size_t>(tokens->first_index), answer->tokens.size());
        if (tokens->first_index == 0) stream->first_chunk_written();
        for (const SampledToken& token : tokens->tokens) answer->tokens.push_back(token.token);
      } else if (auto* finished = std::get_if<FinishedEvent>(&*event)) {
        answer->finished = std::move(*finished);
        co_return;
      } else {
        ++answer->progress_events;
      }
    }
  }

  asio::io_context io;
  AsioClock clock;
  SeededRng rng{7};
  CoordinatorSink metrics;
  WorkerSink worker_metrics;
  grammar::Grammars grammars{hash_token_tree};
  std::shared_ptr<MemoryKvHub> kv_hub = std::make_shared<MemoryKvHub>();
  MemoryControlHub hub{io.get_executor(), clock};
  CoordinatorOptions coordinator_options;
  std::unique_ptr<Coordinator> coordinator;
  bool coordinator_running = false;
  bool coordinator_reachable = true;
  std::vector<std::unique_ptr<Node>> nodes;
};

inline Task<std::unique_ptr<ControlPlane>> connect_to(HashCluster& cluster) {
  if (!cluster.coordinator_reachable) co_return fail(ErrorCode::kUnavailable, "nobody listens");
  co_return cluster.hub.connect();
}

inline HashCluster::Node::Node(HashCluster& cluster, bool is_prefill, int64_t pages, WorkerOptions options,
                               const std::string& fingerprint)
    : pool(test::kHashPageBytes, pages), lane(cluster.clock), rng(cluster.rng.next()) {
  if (!fingerprint.empty()) engine.set_fingerprint(fingerprint);
  kv = *MemoryKvTransport::create({.incarnation = rng.next() | 1, .hub = cluster.kv_hub}, cluster.io.get_executor(),
                                  cluster.clock);
  EXPECT_TRUE(kv->register_memory(pool.memory()));
  WorkerEnv env{cluster.io.get_executor(),
                cluster.clock,
                rng,
                *kv,
                lane,
                engine,
                pool,
                cluster.worker_metrics,
                cluster.grammars,
                [&cluster](Deadline) { return connect_to(cluster); }};
  const auto run = [this, &cluster](auto& worker) {
    asio::co_spawn(cluster.io, worker->run(), [this](std::exception_ptr, Result<void> result) {
      ended = result;
      running = false;
    });
  };
  if (is_prefill) run(prefill = std::make_unique<PrefillWorker>(env, options));
  else run(decode = std::make_unique<DecodeWorker>(env, options));
}

}  // namespace runahead::test
