#include "actors/worker/prefill_worker.h"

#include <boost/asio/post.hpp>
#include <vector>

#include "actors/messages.h"
#include "actors/worker/lane_slices.h"
#include "actors/worker/layer_window.h"
#include "actors/worker/rank_clock.h"
#include "actors/worker/worker_attempt.h"
#include "actors/worker/worker_link.h"
#include "base/at_end.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/sha256.h"
#include "model/sampler.h"

namespace runahead {
namespace {

constexpr auto kDeviceLook =
    std::chrono::seconds(1);  // a copy of a layer takes milliseconds; then whether it has failed

// One rank in one attempt.
struct RankAttempt : WorkerAttempt {
  RankAttempt(const WorkerEnv& env, ChainStep step_in)
      : WorkerAttempt(env, step_in.attempt, step_in.deadline),
        step(std::move(step_in)),
        rows(step.chunk.size()),
        clock(env.clock.now()),
        window(env.executor, env.clock),
        posted(env.executor, env.clock) {}

  const ChainStep step;
  int32_t rows;         // of x: the chunk's, and in the end only the last one
  int32_t projected = 0;  // layers whose K,V are written
  int32_t finished = 0;   // layers that are done
  RankClock clock;
  LayerWindow window;
  int32_t unposted = 0;  // calls that the device owes: layers that are written, and not on the way yet
  Wake posted;
  Time progress_at{0};  // when the next RankProgress is due
};

}  // namespace

class PrefillWorker::Impl final : public WorkerRole {
 public:
  Impl(WorkerEnv env, WorkerOptions options)
      : env_(std::move(env)),
        options_(std::move(options)),
        num_layers_(env_.engine.shape().num_layers),
        speed_{.seconds_per_token = options_.seconds_per_token / num_layers_,
               .seconds_per_pair = options_.seconds_per_pair / num_layers_,
               .rows_at_once = env_.engine.rows_at_once()},
        attempts_gate_(env_.executor, env_.clock),
        link_(env_, options_, proto::Hello::PREFILL, *this) {}

  WorkerLink& link() { return link_; }

  void on_message(const proto::Envelope& message) override;
  void end_all() override;
  asio::awaitable<void> all_ended() override;
  int running() const override { return static_cast<int>(attempts_gate_.running()); }

 private:
  void start(const proto::Envelope& message);
  Result<void> open(RankAttempt& a);
  void post_kept(RankAttempt& a);
  asio::awaitable<void> supervise(RankAttempt& a);
  asio::awaitable<void> relay(RankAttempt& a);
  asio::awaitable<void> recycle(RankAttempt& a);
  asio::awaitable<void> compute(RankAttempt& a);
  Task<void> run(RankAttempt& a);
  void post(RankAttempt& a, int32_t layer);
  void when_published(RankAttempt& a, std::function<void()> call);
  asio::awaitable<void> all_posted(RankAttempt& a);
  Task<void> project_qkv(RankAttempt& a, int32_t layer, Hidden& x, LaneHold& turn);
  void project_rows(RankAttempt& a, int32_t layer, Hidden& x, RowRange rows);
  void run_ahead(RankAttempt& a, int32_t layer, Hidden& x);
  Task<void> attend_and_mlp(RankAttempt& a, int32_t layer, Hidden& x, LaneHold& turn);
  Task<int32_t> wait_for_pages(RankAttempt& a, int32_t layer, int32_t have, LaneHold& turn);
  Task<void> report_scores(RankAttempt& a, Hidden& x);
  Task<void> report_first_token(RankAttempt& a, Hidden& x);
  asio::awaitable<void> on_lane(RankAttempt& a, std::function<void()> work);
  Task<void> in_slices(RankAttempt& a, double seconds_per_row, std::function<void(RowRange)> work,
                       std::function<bool()> again = {});
  void report_progress(RankAttempt& a, int32_t layers_done);

  WorkerEnv env_;
  WorkerOptions options_;
  int32_t num_layers_;
  LayerSpeed speed_;
  AttemptTable<RankAttempt> attempts_;
  KeptPrefixes kept_;
  Gate attempts_gate_;  // one coroutine an attempt
  WorkerLink link_;
};

// ---- the way of one attempt ----

// Paper 4.1, with the cache populated in parallel: each layer's K/V flows from rank to rank while all of them compute.
Task<void> PrefillWorker::Impl::run(RankAttempt& a) {
  const ChainStep& step = a.step;
  const int32_t last_layer = num_layers_ - 1;
  LaneHold turn(env_.lane, step.order);
  std::unique_ptr<Hidden> x;                                                   // [chunk_len, model_dim]
  co_await on_lane(a, [&] { x = env_.engine.embed(step.tokens); });
  for (int32_t layer = 0; layer < num_layers_; ++layer) {
    Result<void> projected = co_await project_qkv(a, layer, *x, turn);         // own K,V, written into own pages
    CO_TRY(projected);
    post(a, layer);                                                            // overlaps everything below
    const bool only_kv = !step.is_last_rank() && step.scored_rows() == 0;
    if (layer == last_layer && only_kv) break;                                 // K,V is all that the next rank needs
    Result<void> attended = co_await attend_and_mlp(a, layer, *x, turn);
    CO_TRY(attended);
    a.window.attended(layer + 1);
    report_progress(a, layer + 1);
  }
  Result<void> scored = co_await report_scores(a, *x);
  CO_TRY(scored);
  if (step.is_last_rank()) {
    Result<void> reported = co_await report_first_token(a, *x);
    CO_TRY(reported);
    post_kept(a);  // the decode worker has time
  }
  turn.release();
  Result<void> relayed = co_await a.prefix.wait_until_complete();  // pages of the last layer are only passed on here
  CO_TRY(relayed);
  co_await all_posted(a);
  co_return co_await a.downstream.drain(a.deadline());
}

// A device brings pages to where they can be sent from beside what it computes next.
void PrefillWorker::Impl::post(RankAttempt& a, int32_t layer) {
  const PageRange own{a.step.chunk.first_page(), a.step.chunk.end_page()};
  if (!env_.engine.publishes_later()) return a.downstream.post(layer, own);
  when_published(a, [&a, layer, own] { a.downstream.post(layer, own); });
}

void PrefillWorker::Impl::when_published(RankAttempt& a, std::function<void()> call) {
  ++a.unposted;
  env_.engine.when_published([&a, executor = env_.executor, call = std::move(call)] {
    asio::post(executor, [&a, call] {
      call();
      --a.unposted;
      a.posted.notify();
    });
  });
}

// The device ends this wait, or a look at it finds that it has failed, which ends the process.
asio::awaitable<void> PrefillWorker::Impl::all_posted(RankAttempt& a) {
  while (a.unposted > 0)
    if (!co_await a.posted.wait_until(env_.clock.after(kDeviceLook)))
      co_await env_.lane.run(a.step.order, [this] { env_.engine.wait(); });
}

Task<void> PrefillWorker::Impl::project_qkv(RankAttempt& a, int32_t layer, Hidden& x, LaneHold& turn) {
  if (layer < a.projected) co_return Result<void>{};
  if (a.window.open() <= layer) {
    const Time asked = env_.clock.now();
    turn.release();
    Result<void> opened = co_await a.window.wait_until_open(layer);
    turn.acquire();
    a.clock.waited_for_pages(env_.clock.now() - asked);
    CO_TRY(opened);
  }
  Result<void> projected =
      co_await in_slices(a, speed_.seconds_per_token, [&](RowRange rows) { project_rows(a, layer, x, rows); });
  co_return projected;
}

// On the lane.
void PrefillWorker::Impl::project_rows(RankAttempt& a, int32_t layer, Hidden& x, RowRange rows) {
  env_.engine.project_qkv(layer, x, *a.kv, a.step.chunk, rows);
  if (rows.end < a.rows) return;
  a.projected = layer + 1;
  if (a.projected < num_layers_ || !a.step.is_last_rank() || a.step.scored_rows() > 0) return;
  env_.engine.keep_last_row(x);
  a.rows = 1;
}

// Attention takes the pages of the prefix in position order as they come, then the chunk's own.
Task<void> PrefillWorker::Impl::attend_and_mlp(RankAttempt& a, int32_t layer, Hidden& x, LaneHold& turn) {
  if (layer < a.finished) co_return Result<void>{};
  const TokenRange chunk = a.step.chunk;
  const int32_t prefix_pages = a.step.prefix_pages();
  const auto attention = [this](PageRange pages) {
    return speed_.seconds_per_pair * kPageTokens * (pages.end - pages.begin);
  };
  int32_t done = 0;
  while (done < prefix_pages) {
    Result<int32_t> ready = co_await wait_for_pages(a, layer, done, turn);
    CO_TRY(ready);
    if (*ready == prefix_pages) break;
    PageRange come{done, *ready};
    const int32_t most = come.end - come.begin;  // pages a round: the slices are cut for so many
    const auto more_have_come = [&] {
      done = come.end;
      come = {done, std::min(done + most, a.prefix.ready_pages(layer))};
      return come.begin < come.end && come.end < prefix_pages;
    };
    Result<void> attended = co_await in_slices(
        a, attention(come), [&](RowRange rows) { env_.engine.attend(layer, x, *a.kv, chunk, come, rows); },
        more_have_come);
    CO_TRY(attended);
  }
  const PageRange rest{done, chunk.end_page()};
  Result<void> finished = co_await in_slices(a, attention(rest) + speed_.seconds_per_token, [&](RowRange rows) {
    env_.engine.attend(layer, x, *a.kv, chunk, rest, rows);
    env_.engine.finish_layer(layer, x, rows);
    if (rows.size() == a.rows) run_ahead(a, layer + 1, x);
  });
  co_return finished;
}

// On the lane, behind a layer that took one job: K,V of the next one; and if nobody gives or awaits pages, as many
// layers more as fit into a slice. A hand-over wakes two threads: a layer each of a short prompt they took a third of TTFT.
void PrefillWorker::Impl::run_ahead(RankAttempt& a, int32_t layer, Hidden& x) {
  const TokenRange chunk = a.step.chunk;
  const double layer_seconds =
      a.rows * (speed_.seconds_per_token + speed_.seconds_per_pair * kPageTokens * chunk.end_page());
  const double fit = layer_seconds > 0 ? std::min(seconds(kLaneSlice) / layer_seconds, 1e6) : 1;
  const bool is_alone = a.step.num_ranks == 1 && a.step.upstream.address.empty();
  int32_t more = is_alone ? static_cast<int32_t>(fit) : 0;
  for (; layer < a.window.open(); ++layer, --more) {
    project_rows(a, layer, x, {0, a.rows});
    if (more <= 0) return;
    env_.engine.attend(layer, x, *a.kv, chunk, {0, chunk.end_page()}, {0, a.rows});
    env_.engine.finish_layer(layer, x, {0, a.rows});
    a.finished = layer + 1;
  }
}

// The chain's only wait. Meanwhile the lane is another request's.
Task<int32_t> PrefillWorker::Impl::wait_for_pages(RankAttempt& a, int32_t layer, int32_t have, LaneHold& turn) {
  if (const int32_t ready = a.prefix.ready_pages(layer); ready > have) co_return ready;
  const Time asked = env_.clock.now();
  turn.release();
  Result<int32_t> ready = co_await a.prefix.wait_for_pages(layer, have);
  turn.acquire();
  a.clock.waited_for_pages(env_.clock.now() - asked);
  co_return ready;
}

// How likely the prompt itself was, where somebody asks: the head for every row, a few rows a job, so that others get
// their turn.
Task<void> PrefillWorker::Impl::report_scores(RankAttempt& a, Hidden& x) {
  const ChainStep& step = a.step;
  for (int32_t begin = 0; begin < step.scored_rows(); begin += limits::kScoredRowsMax) {
    if (a.over()) co_return fail(ErrorCode::kCancelled, "the attempt has ended");
    const RowRange rows{begin, std::min(step.scored_rows(), begin + limits::kScoredRowsMax)};
    proto::Envelope message = envelope(a.id());
    proto::PromptScores& scores = *message.mutable_prompt_scores();
    scores.set_rank(static_cast<uint32_t>(step.rank));
    scores.set_begin(step.chunk.begin + rows.begin + 1);
    Result<void> sound;
    const auto timing = co_await env_.lane.run(step.order, [&] {
      std::vector<TokenId> next;
      for (int32_t row = rows.begin; row < rows.end; ++row) next.push_back(step.token_behind(row));
      std::vector<SampledToken> scored(next.size());
      sound = env_.engine.score_rows(x, rows, next, *step.prompt_logprobs, scored);
      for (const SampledToken& token : scored) encode(token, *scores.add_tokens());
    });
    ++*env_.work_done;
    CO_TRY(sound);
    a.clock.sampled(timing);
    link_.send(message);
  }
  co_return Result<void>{};
}

Task<void> PrefillWorker::Impl::report_first_token(RankAttempt& a, Hidden& x) {
  const ChainStep& step = a.step;
  const auto original = static_cast<size_t>(std::min<int64_t>(step.prompt_len_original, std::ssize(step.prompt)));
  const std::span<const TokenId> prompt(step.prompt);
  proto::Envelope message = envelope(a.id());
  proto::FirstToken& first = *message.mutable_first_token();
  Result<void> sound;
  const auto timing = co_await env_.lane.run(step.order, [&] {
    std::vector<float> logits(static_cast<size_t>(env_.engine.shape().vocab_size));  // [vocab_size]
    env_.engine.logits(x, logits);
    sound = check_logits(logits);
    if (!sound) return;
    const Sha256 digest = sha256(std::as_bytes(std::span(logits)));
    first.mutable_logits_sha256()->assign(digest.begin(), digest.end());
    const std::span<const TokenId> generated = prompt.subspan(original);  // by earlier attempts
    grammar::AnswerGrammar answer;
    const auto mask = answer.mask(env_.grammars, step.sampling.grammar, generated);
    if (!mask) return sound = std::unexpected(mask.error()), void();
    encode(sample(logits, step.sampling, prompt.first(original), generated, step.chunk.end, *mask),
           *first.mutable_token());
  });
  ++*env_.work_done;
  CO_TRY(sound);
  a.clock.sampled(timing);
  a.clock.report(env_.clock.now(), *first.mutable_timing());
  link_.send(message);
  co_return Result<void>{};
}

// Pages of the prefix go on downstream the moment they arrive, whatever the lane does.
asio::awaitable<void> PrefillWorker::Impl::relay(RankAttempt& a) {
  const Result<void> relayed = co_await a.prefix.relay(&a.downstream, a.deadline());
  if (!relayed) a.end(WorkerAttempt::End::kFailed, {relayed.error(), a.step.upstream.worker});
}

asio::awaitable<void> PrefillWorker::Impl::recycle(RankAttempt& a) {
  const Result<void> recycled = co_await a.window.recycle(a.prefix, a.downstream, a.deadline());
  if (!recycled) a.end(WorkerAttempt::End::kFailed, {recycled.error(), a.step.downstream.worker});
}

asio::awaitable<void> PrefillWorker::Impl::compute(RankAttempt& a) {
  Result<void> done = no_memory();
  try {
    done = co_await run(a);
  } catch (const std::bad_alloc&) {  // the chunk is too large for what is free now: another worker may do it
  }
  // Also of a layer that was broken off: nothing writes a page when it has gone back to the pool.
  if (env_.engine.publishes_later()) when_published(a, [] {});
  co_await all_posted(a);
  a.window.close();
  if (done) a.end(WorkerAttempt::End::kDone);
  else a.end(WorkerAttempt::End::kFailed, {done.error(), a.step.downstream.worker});
}

// ---- its beginning and its end ----

void PrefillWorker::Impl::on_message(const proto::Envelope& message) {
  const AttemptId id = attempt_of(message);
  if (message.has_run_chain_step() && !attempts_.find(id)) start(message);
  if (!message.has_end_attempt()) return;
  if (RankAttempt* attempt = attempts_.find(id)) return attempt->end(WorkerAttempt::End::kTold);
  link_.send_ended(id);  // it has ended before, or was never begun
}

void PrefillWorker::Impl::start(const proto::Envelope& message) {
  const AttemptId id = attempt_of(message);
  Result<ChainStep> step = parse_chain_step(message, env_.engine.shape(), env_.clock.now());
  Result<void> opened = step ? Result<void>{} : std::unexpected(step.error());
  if (opened && attempts_.size() >= options_.attempts_max)
    opened = fail(ErrorCode::kOverloaded, "this worker has its number of attempts in work");
  RankAttempt* attempt = opened ? &attempts_.insert(std::make_unique<RankAttempt>(env_, std::move(*step))) : nullptr;
  if (attempt != nullptr) {
    opened = open(*attempt);
    if (opened) {
      attempt->gate.spawn(relay(*attempt));
      attempt->gate.spawn(recycle(*attempt));
      attempt->gate.spawn(compute(*attempt));
    } else {
      attempt->end(WorkerAttempt::End::kFailed, {opened.error(), 0});
    }
    return attempts_gate_.spawn(supervise(*attempt));
  }
  link_.send_failed(id, {opened.error(), 0});
  link_.send_ended(id);
}

// Pages, then receives for every layer that has some, then the way on: all of it before anything is computed.
Result<void> PrefillWorker::Impl::open(RankAttempt& a) {
  const ChainStep& step = a.step;
  const ModelShape& model = env_.engine.shape();
  // Of what it sees of [0, end): the receive buffer is the cache.
  TRY(a.lease(env_, kept_, step.prefix, rank_lease(model, step.chunk, step.prefix.pages, step.is_last_rank())));
  a.window.begin(*a.kv);
  const size_t page_bytes = env_.pool.page_bytes();
  const HopShape in = hop_shape(a.id(), model, {step.prefix.pages, step.prefix_pages()}, step.chunk.begin, page_bytes);
  const HopShape out = hop_shape(a.id(), model, {step.downstream_has, step.chunk.end_page()},
                                 step.full_pages() * kPageTokens, page_bytes);
  TRY(a.prefix.open(env_.kv, in, step.upstream, a.kv));
  TRY(a.downstream.open(env_.kv, out, step.downstream, a.kv));
  if (!step.is_last_rank()) post_kept(a);  // the next rank attends to them first
  return {};
}

// Pages of the prefix that nobody has sent here.
void PrefillWorker::Impl::post_kept(RankAttempt& a) {
  for (int32_t layer = 0; layer < num_layers_; ++layer) a.downstream.post(layer, {0, a.step.prefix.pages});
}

asio::awaitable<void> PrefillWorker::Impl::supervise(RankAttempt& a) {
  const AttemptId id = a.id();
  log::debug("{}: attempt {}.{} began: rank {} of {}, tokens {} to {}", options_.name, id.request, id.attempt,
             a.step.rank, a.step.num_ranks, a.step.chunk.begin, a.step.chunk.end);
  const WorkerAttempt::End how = co_await a.until_over();
  if (how == WorkerAttempt::End::kFailed) link_.send_failed(id, a.failure());
  co_await a.release(env_.metrics);
  proto::Envelope message = envelope(id);
  if (how == WorkerAttempt::End::kDone) {
    proto::RankDone& done = *message.mutable_rank_done();
    done.set_rank(static_cast<uint32_t>(a.step.rank));
    done.set_kept_pages(a.keep(env_, kept_, a.step.prefix.keep, a.step.full_pages()));
    a.clock.report(env_.clock.now(), *done.mutable_timing());
    done.mutable_timing()->set_kv_sent_bytes(a.downstream.stats().bytes);
    done.mutable_timing()->set_kv_send_seconds(a.downstream.stats().span_seconds);
    done.mutable_timing()->set_kv_wire_seconds(a.downstream.stats().wire_seconds);
    done.mutable_timing()->set_kv_rtt_seconds(a.downstream.stats().rtt_seconds);
    done.mutable_timing()->set_kv_received_bytes(a.prefix.stats().bytes);
    env_.metrics.lane_busy("compute", seconds(a.clock.compute()));
  } else {
    message.mutable_attempt_ended();
  }
  attempts_.erase(id);  // the pages are back before the coordinator counts on them
  env_.metrics.pages(env_.pool.usage());
  log::debug("{}: attempt {}.{} ended", options_.name, id.request, id.attempt);
  link_.send(message);
}

// Another coordinator knows of no kept prefix, and begins to count them anew.
asio::awaitable<void> PrefillWorker::Impl::all_ended() {
  co_await attempts_gate_.close();
  kept_.drop_all();
}

void PrefillWorker::Impl::end_all() {
  for (auto& [id, attempt] : attempts_) attempt->end(WorkerAttempt::End::kTold);
}

asio::awaitable<void> PrefillWorker::Impl::on_lane(RankAttempt& a, std::function<void()> work) {
  // A job's time is that of what it asked for, and nothing of it reads or writes a page when it has ended.
  const ComputeLane::Timing timing = co_await env_.lane.run(a.step.order, [&] {
    const AtEnd wait([&] { env_.engine.wait(); });  // also of one that was broken off
    work();
  });
  ++*env_.work_done;
  a.clock.computed(timing);
}

// Work on all rows, which an earlier request may interrupt between two slices; round after round while `again`, on the lane,
// finds more to do.
Task<void> PrefillWorker::Impl::in_slices(RankAttempt& a, double seconds_per_row, std::function<void(RowRange)> work,
                                          std::function<bool()> again) {
  const std::vector<RowRange> slices = cut_rows(a.rows, slice_rows(speed_, seconds_per_row));
  for (auto next = slices.begin(); next != slices.end();) {
    if (a.over()) co_return fail(ErrorCode::kCancelled, "the attempt has ended");
    co_await on_lane(a, [&] {
      do {
        work(*next++);
        if (next == slices.end() && again && again()) next = slices.begin();
      } while (next != slices.end() && env_.lane.may_go_on(a.step.order));
    });
  }
  co_return Result<void>{};
}

void PrefillWorker::Impl::report_progress(RankAttempt& a, int32_t layers_done) {
  const Time now = env_.clock.now();
  if (now < a.progress_at) return;
  a.progress_at = now + limits::kProgressInterval;
  proto::Envelope message = envelope(a.id());
  proto::RankProgress& progress = *message.mutable_rank_progress();
  progress.set_rank(static_cast<uint32_t>(a.step.rank));
  progress.set_layers_done(static_cast<uint32_t>(layers_done));
  progress.set_layers_total(static_cast<uint32_t>(num_layers_));
  link_.send(message);
}

PrefillWorker::PrefillWorker(WorkerEnv env, WorkerOptions options)
    : impl_(std::make_unique<Impl>(std::move(env), std::move(options))) {}
PrefillWorker::~PrefillWorker() = default;
Task<void> PrefillWorker::run() { return impl_->link().run(); }
bool PrefillWorker::registered() const { return impl_->link().registered(); }
void PrefillWorker::drain() { impl_->link().drain(); }
void PrefillWorker::stop() { impl_->link().stop(); }

}  // namespace runahead
