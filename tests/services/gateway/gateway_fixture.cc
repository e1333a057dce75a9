#include "tests/services/gateway/gateway_fixture.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "services/gateway/status_routes.h"

namespace runahead {
namespace {

class FakeStream final : public TokenStream {
 public:
  FakeStream(FakeInference& owner, asio::io_context& io, Script script, InferenceRequest request)
      : owner_(owner), timer_(io), script_(std::move(script)), request_(std::move(request)) {}

  Task<StreamEvent> next(Deadline) override {
    if (cancelled_) co_return fail(ErrorCode::kCancelled, "cancelled");
    if (finished_) co_return StreamEvent(finished());
    if (script_.progress) {
      script_.progress = false;
      co_return StreamEvent(PrefillProgress{.fraction = 0.5, .ranks = {1.0, 0.0}});
    }
    const Duration pause = sent_ == 0 ? script_.before_first : script_.between;
    if (pause.count() > 0) {
      timer_.expires_after(pause);
      co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
      if (cancelled_) co_return fail(ErrorCode::kCancelled, "cancelled");
    }
    if (request_.prompt_logprobs && !std::exchange(scored_, true)) co_return StreamEvent(scores());
    TokensEvent event{.first_index = static_cast<int32_t>(sent_)};
    while (event.tokens.size() < script_.tokens_per_event && has_more()) event.tokens.push_back(token());
    owner_.produced += static_cast<int>(event.tokens.size());
    if (!event.tokens.empty()) co_return StreamEvent(std::move(event));
    if (script_.fail_at_end) co_return std::unexpected(*script_.fail_at_end);
    co_return StreamEvent(finished());
  }
  void finish() override {
    if (!std::exchange(finished_, true)) ++owner_.finished;
  }
  void cancel() override {
    if (std::exchange(cancelled_, true)) return;
    ++owner_.cancelled;
    timer_.cancel();
  }
  void first_chunk_written() override { ++owner_.first_chunks; }

 private:
  bool has_more() const {
    return static_cast<int32_t>(sent_) < request_.max_new_tokens && (script_.endless || sent_ < script_.text.size());
  }
  // -1 for the second token of the prompt, -2 for the third, and so on; the letter after it is more likely.
  PromptEvent scores() const {
    PromptEvent event;
    for (size_t i = 1; i < request_.prompt.size(); ++i) {
      SampledToken token{.token = request_.prompt[i], .logprob = -static_cast<float>(i)};
      for (int32_t n = 1; n <= *request_.prompt_logprobs; ++n)
        token.top.push_back({token.token + n, -0.25f * static_cast<float>(n)});
      event.tokens.push_back(std::move(token));
    }
    return event;
  }
  SampledToken token() {
    const auto id = static_cast<TokenId>(static_cast<unsigned char>(script_.text[sent_++ % script_.text.size()]));
    SampledToken token{.token = id, .logprob = -0.5f};
    for (int32_t i = 0; i < request_.sampling.top_logprobs; ++i)
      token.top.push_back({id + i, -0.5f - static_cast<float>(i)});
    return token;
  }
  FinishedEvent finished() const {
    FinishedEvent event;
    event.reason = static_cast<int32_t>(sent_) >= request_.max_new_tokens ? FinishReason::kLength : FinishReason::kStop;
    event.generated = static_cast<int32_t>(sent_);
    if (event.reason == FinishReason::kStop) event.stop_token = SampledToken{.token = kToyEnd, .logprob = -0.125f};
    event.report.ttft_seconds = 0.75;
    event.report.stages[TtftStage::kPrefillCompute] = 0.5;
    event.report.stages[TtftStage::kKvWait] = 0.25;
    event.report.predicted_ttft_seconds = 0.7;
    event.report.strategy = request_.strategy;
    event.report.cuts = {64};
    event.report.ranks = {{0, "w1", "cpu", {0, 64}, 0.3, 0, 1024}, {1, "w2", "cpu", {64, 100}, 0.2, 0.25, 0}};
    event.report.first_logits_sha256 = "ab";
    return event;
  }

  FakeInference& owner_;
  asio::steady_timer timer_;
  Script script_;
  InferenceRequest request_;
  size_t sent_ = 0;
  bool scored_ = false, cancelled_ = false, finished_ = false;
};

}  // namespace

Result<std::shared_ptr<TokenStream>> FakeInference::submit(InferenceRequest request) {
  std::lock_guard lock(mutex_);
  if (script_.no_memory) throw std::bad_alloc();
  if (script_.odd_json) (void)nlohmann::json(5).get<std::string>();
  if (script_.refuse) return std::unexpected(*script_.refuse);
  requests_.push_back(request);
  return std::make_shared<FakeStream>(*this, io_, script_, std::move(request));
}

ClusterView FakeInference::cluster() const {
  std::lock_guard lock(mutex_);
  ClusterView view;
  view.context_len = script_.context_len;
  view.compute = "fp32";
  view.draining = script_.draining;
  if (!script_.ready) return view;
  view.workers.resize(2);
  view.workers[0] = {1, "w1", "prefill", "cpu", "tcp", "ready", 100, 100, 0, 1000.0};
  view.workers[1] = {2, "w2", "decode", "cpu", "tcp", "ready", 100, 100, 0, 1000.0};
  return view;
}

std::vector<NamedEvent> named_events(const std::string& body) {
  std::vector<NamedEvent> events;
  for (size_t at = 0; (at = body.find("event: ", at)) != std::string::npos;) {
    const size_t name_end = body.find('\n', at), data = body.find("data: ", name_end) + 6, end = body.find('\n', data);
    events.push_back({body.substr(at + 7, name_end - at - 7), nlohmann::json::parse(body.substr(data, end - data))});
    at = end;
  }
  return events;
}

std::set<std::string> described_routes() {
  static constexpr std::string_view kMethods[] = {"get", "put", "post", "delete", "options", "head", "patch", "trace"};
  std::set<std::string> routes;
  const auto description = nlohmann::json::parse(kOpenApiJson);
  for (const auto& [path, operations] : description["paths"].items())
    for (std::string_view method : kMethods)
      if (operations.contains(method)) {
        std::string route(method);
        std::ranges::transform(route, route.begin(), [](unsigned char c) { return std::toupper(c); });
        routes.insert(route + " " + path);
      }
  return routes;
}

void GatewayTest::start() {
  gateway_ = std::make_unique<Gateway>(io_.get_executor(), clock_, inference_, jobs(), codec(), metrics_, options_);
  const Result<void> listening = gateway_->listen();
  ASSERT_TRUE(listening) << listening.error().message;
  thread_ = std::thread([this] {
    const auto work = asio::make_work_guard(io_);
    io_.run();
  });
}

void GatewayTest::stop() {
  if (!thread_.joinable()) return;
  asio::co_spawn(io_, gateway_->shutdown(), asio::use_future).get();
  io_.stop();
  thread_.join();
  io_.restart();
  io_.poll();
  gateway_.reset();
}

}  // namespace runahead
