#include "actors/worker/decode_worker.h"

#include <new>
#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/worker/decode_core.h"
#include "actors/worker/worker_attempt.h"
#include "actors/worker/worker_link.h"
#include "base/at_end.h"
#include "base/log.h"
#include "model/sampler.h"

namespace runahead {
namespace {

// One sequence: the last link of its chain.
struct SequenceAttempt : WorkerAttempt {
  SequenceAttempt(const WorkerEnv& env, const DecodeOrder& order)
      : WorkerAttempt(env, order.attempt, order.deadline),
        upstream(order.upstream),
        beginning(order.beginning),
        prefix_order(order.prefix),
        prompt_len(order.prompt_len) {}

  const KvHop upstream, beginning;
  const PrefixOrder prefix_order;
  const int32_t prompt_len;
  grammar::AnswerGrammar grammar;  // touched on the lane
  int32_t tokens = 0;  // of the answer, when it has ended; 0: nothing of it is worth keeping
  Duration handoff{0};
};

}  // namespace

class DecodeWorker::Impl final : public WorkerRole {
 public:
  Impl(WorkerEnv env, WorkerOptions options)
      : env_(std::move(env)),
        options_(std::move(options)),
        core_(options_.faults, options_.decode_slots),
        work_(env_.executor, env_.clock),
        attempts_gate_(env_.executor, env_.clock),
        loop_gate_(env_.executor, env_.clock),
        link_(env_, options_, proto::Hello::DECODE, *this) {}

  WorkerLink& link() { return link_; }
  Task<void> run();

  void on_message(const proto::Envelope& message) override;
  void end_all() override;
  asio::awaitable<void> all_ended() override;
  int running() const override { return attempts_gate_.running(); }

 private:
  void start(const proto::Envelope& message);
  void on_first_token(const proto::Envelope& message);
  Result<void> open(SequenceAttempt& a, const DecodeOrder& order);
  asio::awaitable<void> supervise(SequenceAttempt& a);
  asio::awaitable<void> receive(SequenceAttempt& a);
  asio::awaitable<void> give_beginning(SequenceAttempt& a);
  void keep_prompt(const SequenceAttempt& a);
  int32_t keep(const SequenceAttempt& a);
  asio::awaitable<void> decode_loop();
  asio::awaitable<void> step(std::vector<DecodeStepRow> rows);
  void give_up(AttemptId id, const Error& why);
  void perform(std::vector<DecodeAction> actions);

  WorkerEnv env_;
  WorkerOptions options_;
  DecodeCore core_;
  Wake work_;  // the batch may have changed
  bool closing_ = false;
  AttemptTable<SequenceAttempt> attempts_;
  KeptPrefixes kept_;
  Gate attempts_gate_;         // one coroutine a sequence
  Gate loop_gate_;             // the decode loop
  std::vector<float> logits_;  // [batch, vocab_size] of the step in work
  WorkerLink link_;
};

Task<void> DecodeWorker::Impl::run() {
  loop_gate_.spawn(decode_loop());
  const Result<void> served = co_await link_.run();
  closing_ = true;
  work_.notify();
  co_await loop_gate_.close();
  co_return served;
}

// ---- the batch ----

asio::awaitable<void> DecodeWorker::Impl::decode_loop() {
  while (!closing_) {
    std::vector<DecodeStepRow> rows = core_.next_step(env_.clock.now());
    if (rows.empty()) co_await work_.wait();  // until a sequence joins, or run() ends
    else co_await step(std::move(rows));
  }
}

// One token for every sequence that has joined. Who leaves meanwhile waits at its gate until the step has ended.
asio::awaitable<void> DecodeWorker::Impl::step(std::vector<DecodeStepRow> rows) {
  const auto vocab = static_cast<size_t>(env_.engine.shape().vocab_size);
  std::vector<DecodeRow> batch;
  std::vector<Gate::Pass> passes;
  std::vector<grammar::AnswerGrammar*> grammars;
  for (const DecodeStepRow& row : rows) {
    SequenceAttempt& a = *attempts_.find(row.sequence->order.attempt);
    a.kv->reach(row.position / kPageTokens);
    batch.push_back({a.kv.get(), row.token, row.position});
    passes.push_back(a.gate.enter());
    grammars.push_back(&a.grammar);
  }
  std::vector<SampledToken> tokens(batch.size());
  std::vector<Result<void>> sound(batch.size());
  std::optional<ComputeLane::Timing> timing;
  try {
    logits_.resize(batch.size() * vocab);
    timing = co_await env_.lane.run(LaneOrder{}, [&] {
      const AtEnd wait([&] { env_.engine.wait(); });  // also of a step that was broken off: rows' pages may go then
      env_.engine.decode(batch, logits_);
      for (size_t i = 0; i < rows.size(); ++i) {
        const DecodeSequence& sequence = *rows[i].sequence;
        const std::span logits = std::span(logits_).subspan(i * vocab, vocab);
        const SamplingParams& sampling = sequence.order.sampling;
        sound[i] = check_logits(logits);
        const auto mask = grammars[i]->mask(env_.grammars, sampling.grammar, sequence.generated);
        if (sound[i] && !mask) sound[i] = std::unexpected(mask.error());
        if (!sound[i]) continue;
        tokens[i] = sample(logits, sampling, sequence.prompt(), sequence.generated, rows[i].position + 1, *mask);
      }
    });
  } catch (const std::bad_alloc&) {
  }
  ++*env_.work_done;
  passes.clear();
  if (!timing) {  // the others go on: a step of fewer rows needs less
    give_up(rows.back().sequence->order.attempt, no_memory().error());
    co_return work_.notify();
  }
  env_.metrics.decode_step(static_cast<int32_t>(batch.size()), seconds(timing->computed));
  env_.metrics.lane_busy("decode", seconds(timing->computed));
  for (size_t i = rows.size(); i-- > 0;) {
    if (sound[i]) continue;
    give_up(rows[i].sequence->order.attempt, sound[i].error());
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(i));
    tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(i));
  }
  perform(core_.stepped(rows, std::move(tokens)));
}

// It may have ended during the step.
void DecodeWorker::Impl::give_up(AttemptId id, const Error& why) {
  if (SequenceAttempt* a = attempts_.find(id)) a->end(WorkerAttempt::End::kFailed, {why, 0});
  core_.leave(id);
}

void DecodeWorker::Impl::perform(std::vector<DecodeAction> actions) {
  for (DecodeAction& action : actions) {
    if (auto* token = std::get_if<SendToken>(&action)) {
      proto::Envelope message = envelope(token->attempt);
      proto::TokenBatch& tokens = *message.mutable_token_batch();
      tokens.set_first_index(static_cast<uint32_t>(token->index));
      encode(token->token, *tokens.add_tokens());
      link_.send(message);
    } else if (auto* done = std::get_if<SequenceDone>(&action)) {
      SequenceAttempt* a = attempts_.find(done->attempt);
      a->tokens = done->tokens;
      a->handoff = done->handoff;
      a->end(WorkerAttempt::End::kDone);
    }
  }
  work_.notify();
}

// ---- one sequence ----

void DecodeWorker::Impl::on_message(const proto::Envelope& message) {
  const AttemptId id = attempt_of(message);
  if (message.has_run_decode() && !attempts_.find(id)) start(message);
  if (message.has_first_token()) on_first_token(message);
  if (!message.has_end_attempt()) return;
  SequenceAttempt* a = attempts_.find(id);
  if (a == nullptr) return link_.send_ended(id);  // it has ended before, or was never begun
  if (!a->over()) a->tokens = std::min(message.end_attempt().tokens(), core_.made(id));
  a->end(WorkerAttempt::End::kTold);
}

void DecodeWorker::Impl::start(const proto::Envelope& message) {
  const AttemptId id = attempt_of(message);
  Result<DecodeOrder> order = parse_decode_order(message, env_.engine.shape(), env_.clock.now());
  if (order && attempts_.size() >= options_.attempts_max)
    order = fail(ErrorCode::kOverloaded, "this worker has its number of sequences in work");
  if (!order) {
    link_.send_failed(id, {order.error(), 0});
    return link_.send_ended(id);
  }
  SequenceAttempt& a = attempts_.insert(std::make_unique<SequenceAttempt>(env_, *order));
  const Result<void> opened = open(a, *order);
  if (opened) {
    if (order->gives_beginning()) a.gate.spawn(give_beginning(a));
    core_.add(std::move(*order));
    a.gate.spawn(receive(a));
  } else {
    a.end(WorkerAttempt::End::kFailed, {opened.error(), 0});
  }
  attempts_gate_.spawn(supervise(a));
}

Result<void> DecodeWorker::Impl::open(SequenceAttempt& a, const DecodeOrder& order) {
  const ModelShape& model = env_.engine.shape();
  const size_t page_bytes = env_.pool.page_bytes();
  TRY(a.lease(env_, kept_, order.prefix,
              sequence_lease(model, order.prompt_len, order.prompt_len + order.max_new_tokens, order.prefix.pages,
                             order.prefix.keep_prompt != 0)));
  const HopShape in = hop_shape(a.id(), model, {order.prefix.pages, pages_for(order.prompt_len)},
                                order.full_pages() * kPageTokens, page_bytes);
  TRY(a.prefix.open(env_.kv, in, order.upstream, a.kv));
  if (!order.gives_beginning()) return {};
  const HopShape out = hop_shape(a.id(), model, {order.beginning_from, order.prefix.pages},
                                 order.prefix.pages * kPageTokens, page_bytes);
  return a.downstream.open(env_.kv, out, order.beginning, a.kv);
}

// An earlier answer, which nobody else has: the chain begins behind it, and so at this worker.
asio::awaitable<void> DecodeWorker::Impl::give_beginning(SequenceAttempt& a) {
  for (int32_t layer = 0; layer < env_.engine.shape().num_layers; ++layer)
    a.downstream.post(layer, {0, a.prefix_order.pages});
  const Result<void> given = co_await a.downstream.drain(a.deadline());
  if (!given) a.end(WorkerAttempt::End::kFailed, {given.error(), a.beginning.worker});
}

// While the answer is made: other choices of the prompt, and other questions, share its full pages. The answer is behind them.
void DecodeWorker::Impl::keep_prompt(const SequenceAttempt& a) {
  if (a.prefix_order.keep_prompt == 0) return;
  proto::Envelope message = envelope(a.id());
  message.mutable_prompt_kept()->set_kept_pages(
      a.keep(env_, kept_, a.prefix_order.keep_prompt, a.prompt_len / kPageTokens));
  link_.send(message);
}

// The last token of the answer was never an input: it has no keys and values. A reader who has ended it may be so far behind that
// what the next turn would see of layers with a window is gone.
int32_t DecodeWorker::Impl::keep(const SequenceAttempt& a) {
  if (a.tokens <= 0) return 0;
  const int32_t written = a.prompt_len + (env_.engine.decodes_as_it_prefills() ? a.tokens - 1 : 0);
  if (!a.kv->reach(written / kPageTokens)) return 0;
  return a.keep(env_, kept_, a.prefix_order.keep, written / kPageTokens);
}

asio::awaitable<void> DecodeWorker::Impl::receive(SequenceAttempt& a) {
  const Result<void> received = co_await a.prefix.relay(nullptr, a.deadline());
  if (a.over()) co_return;
  if (!received) co_return a.end(WorkerAttempt::End::kFailed, {received.error(), a.upstream.worker});
  keep_prompt(a);  // before the lane may look at these pages
  perform(core_.pages_complete(a.id()));
}

void DecodeWorker::Impl::on_first_token(const proto::Envelope& message) {
  const SampledToken token = decode(message.first_token().token());
  SequenceAttempt* a = attempts_.find(attempt_of(message));
  if (a == nullptr || a->over() || token.token < 0 || token.token >= env_.engine.shape().vocab_size) return;
  perform(core_.first_token(a->id(), token.token, env_.clock.now()));
}

asio::awaitable<void> DecodeWorker::Impl::supervise(SequenceAttempt& a) {
  const AttemptId id = a.id();
  log::debug("{}: attempt {}.{} began", options_.name, id.request, id.attempt);
  const WorkerAttempt::End how = co_await a.until_over();
  core_.leave(id);
  if (how == WorkerAttempt::End::kFailed) link_.send_failed(id, a.failure());
  co_await a.release(env_.metrics);
  proto::Envelope message = envelope(id);
  if (how == WorkerAttempt::End::kDone) {
    proto::DecodeDone& done = *message.mutable_decode_done();
    done.set_tokens(static_cast<uint32_t>(a.tokens));
    done.set_handoff_seconds(seconds(a.handoff));
    done.set_kv_received_bytes(a.prefix.stats().bytes);
    done.set_kept_pages(keep(a));
    done.set_kv_given_bytes(a.downstream.stats().bytes);
    done.set_kv_given_seconds(a.downstream.stats().wire_seconds);
    done.set_given_to(a.beginning.worker);
  } else {
    message.mutable_attempt_ended()->set_kept_pages(keep(a));
  }
  attempts_.erase(id);  // the pages are back before the coordinator counts on them
  env_.metrics.pages(env_.pool.usage());
  log::debug("{}: attempt {}.{} ended", options_.name, id.request, id.attempt);
  link_.send(message);
}

// Another coordinator knows of no kept prefix, and begins to count them anew.
asio::awaitable<void> DecodeWorker::Impl::all_ended() {
  co_await attempts_gate_.close();
  kept_.drop_all();
}

void DecodeWorker::Impl::end_all() {
  for (auto& [id, attempt] : attempts_) attempt->end(WorkerAttempt::End::kTold);
}

DecodeWorker::DecodeWorker(WorkerEnv env, WorkerOptions options)
    : impl_(std::make_unique<Impl>(std::move(env), std::move(options))) {}
DecodeWorker::~DecodeWorker() = default;
Task<void> DecodeWorker::run() { return impl_->run(); }
bool DecodeWorker::registered() const { return impl_->link().registered(); }
void DecodeWorker::drain() { impl_->link().drain(); }
void DecodeWorker::stop() { impl_->link().stop(); }

}  // namespace runahead
