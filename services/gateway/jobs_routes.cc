#include "services/gateway/jobs_routes.h"

#include <charconv>

#include "services/gateway/api_error.h"
#include "services/gateway/sse_writer.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int32_t kListDefault = 50;
constexpr size_t kIdempotencyKeyBytesMax = 256;

const char* status_name(JobStatus status) {
  switch (status) {
    case JobStatus::kQueued:
      return "queued";
    case JobStatus::kRunning:
      return "running";
    case JobStatus::kSucceeded:
      return "succeeded";
    case JobStatus::kFailed:
      return "failed";
    case JobStatus::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

// What the gateway keeps beside a job, to show its answer: JobSubmission::client_json.
struct JobText {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string model;
  std::string echo;
  std::vector<std::string> stop;
  bool logprobs = false;
};

json to_json(const JobText& text) {
  return {{"chat", text.endpoint == Endpoint::kChat},
          {"model", text.model},
          {"echo", text.echo},
          {"stop", text.stop},
          {"logprobs", text.logprobs}};
}

// The rows are our own, but older versions may have written them: anything missing has its default.
JobText job_text(const std::string& client_json) {
  const json stored = json::parse(client_json, nullptr, false);
  JobText text;
  if (!stored.is_object()) return text;
  text.endpoint = stored.value("chat", false) ? Endpoint::kChat : Endpoint::kCompletions;
  text.model = stored.value("model", "");
  text.echo = stored.value("echo", "");
  text.stop = stored.value("stop", std::vector<std::string>{});
  text.logprobs = stored.value("logprobs", false);
  return text;
}

json seconds_or_null(int64_t unix_ms) {
  return unix_ms == 0 ? json(nullptr) : json(unix_ms / 1000);
}

// The tokens end with the stop string, by job_stop_rule(); the text ends before it.
json result_json(const JobView& job, const JobText& text, const TextCodec& codec) {
  AnswerText assembler(text.stop);
  AnswerChoice choice{.text = text.echo};
  ChoiceResult result;
  bool stopped = false;
  const auto take = [&](TextPiece piece) {
    choice.text += piece.text;
    std::ranges::move(piece.tokens, std::back_inserter(choice.tokens));
    stopped = piece.stopped;
  };
  for (size_t i = 0; i < job.tokens.size() && !stopped; ++i) {
    take(assembler.push(job.tokens[i], codec.token_bytes(job.tokens[i].token)));
    ++result.completion_tokens;
  }
  if (!stopped) take(assembler.flush());
  if (job.finished) {
    choice.finish_reason = stopped || job.finished->reason == FinishReason::kStop ? "stop" : "length";
    result.report = job.finished->report;
  }
  const AnswerHead head{text.endpoint, job.id, text.model, job.created_unix_ms / 1000};
  return answer_body(head, std::span(&choice, 1), text.logprobs, codec,
                     usage_json(job.prompt_tokens, std::span(&result, 1)));
}

json job_json(const JobView& job, const TextCodec& codec, bool with_result) {
  const JobText text = job_text(job.client_json);
  json body = {{"id", job.id},
               {"object", "job"},
               {"status", status_name(job.status)},
               {"endpoint", text.endpoint == Endpoint::kChat ? "chat" : "completions"},
               {"created_at", seconds_or_null(job.created_unix_ms)},
               {"ended_at", seconds_or_null(job.ended_unix_ms)},
               {"prompt_tokens", job.prompt_tokens},
               {"completion_tokens", job.tokens.size()},
               {"prefill_fraction", job.prefill_fraction},
               {"result", nullptr},
               {"error", nullptr}};
  if (job.error) body["error"] = error_json(*job.error)["error"];
  if (with_result && job.status == JobStatus::kSucceeded) body["result"] = result_json(job, text, codec);
  return body;
}

std::optional<int64_t> whole_number(std::string_view text, int64_t min, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) return {};
  return value;
}

Result<JobSubmission> submission(const GatewayContext& context, const PreparedGeneration& prepared,
                                 std::string_view key) {
  const GenerationRequest& request = prepared.request;
  if (request.num_choices() != 1)
    return fail(ErrorCode::kUnsupported, "a job has one prompt and n = 1; submit one job for each", "n");
  if (request.stream)
    return fail(ErrorCode::kUnsupported, "a job does not stream; read /v1/jobs/{id}/events", "stream");
  if (key.size() > kIdempotencyKeyBytesMax)
    return fail(ErrorCode::kInvalidArgument, "the header Idempotency-Key is longer than 256 bytes", "Idempotency-Key");
  const JobText text{request.endpoint, context.model_name, echoed(request, 0), request.stop,
                     request.logprobs};
  JobSubmission result;
  result.request = inference_request(request, 0, context.served_model(), context.codec);
  result.request.tokenize_time = prepared.tokenize_time;
  result.request.deadline = context.job_timeout;
  result.idempotency_key = std::string(key);
  result.client_json = to_text(to_json(text));
  return result;
}

Task<HttpReply> submit(const GatewayContext& context, JobsApi& jobs, HttpRequest& http) {
  const Time received_at = http.received_at;
  const std::string key(http.header("idempotency-key"));
  Result<PreparedGeneration> prepared = co_await prepare_generation(context, std::nullopt, std::move(http.body));
  if (!prepared) co_return std::unexpected(std::move(prepared.error()));
  JobSubmission submitted = CO_TRY(submission(context, *prepared, key));
  submitted.request.received_at = received_at;
  Result<JobView> job = co_await jobs.submit(std::move(submitted));
  if (!job) co_return std::unexpected(std::move(job.error()));
  HttpReply reply = json_reply(job_json(*job, context.codec, true), 202);
  reply.headers.emplace_back("Location", "/v1/jobs/" + job->id);
  co_return reply;
}

asio::awaitable<void> serve_submit(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const Time received_at = exchange.request().received_at;
  Result<HttpReply> result = co_await submit(context, jobs, exchange.request());
  exchange.body_is_gone();
  const bool rejected = !result && result.error().code == ErrorCode::kOverloaded;
  const RequestStatus status = result     ? RequestStatus::kOk
                               : rejected ? RequestStatus::kRejected
                                          : RequestStatus::kError;
  HttpReply reply = reply_of(std::move(result));
  co_await exchange.respond(std::move(reply));
  context.metrics.http_request("jobs", status, seconds(context.clock.now() - received_at));
}

Task<HttpReply> list(const GatewayContext& context, JobsApi& jobs, std::string query) {
  int32_t limit = kListDefault;
  if (!query.empty()) {
    constexpr std::string_view kLimit = "limit=";
    const auto asked = query.starts_with(kLimit)
                           ? whole_number(std::string_view(query).substr(kLimit.size()), 1, limits::kJobsListMax)
                           : std::nullopt;
    if (!asked) co_return fail(ErrorCode::kInvalidArgument, "the only query is limit, from 1 to 1000", "limit");
    limit = static_cast<int32_t>(*asked);
  }
  Result<std::vector<JobView>> found = co_await jobs.list(limit);
  const std::vector<JobView> rows = CO_TRY(found);
  json data = json::array();
  for (const JobView& job : rows) data.push_back(job_json(job, context.codec, false));
  co_return json_reply({{"object", "list"}, {"data", std::move(data)}});
}

Task<HttpReply> show(const GatewayContext& context, JobsApi& jobs, std::string id) {
  Result<JobView> found = co_await jobs.find(std::move(id));
  const JobView job = CO_TRY(found);
  co_return json_reply(job_json(job, context.codec, true));
}

Task<HttpReply> cancel(const GatewayContext& context, JobsApi& jobs, std::string id) {
  Result<JobView> found = co_await jobs.cancel(std::move(id));
  const JobView job = CO_TRY(found);
  co_return json_reply(job_json(job, context.codec, true));
}

// One reader of a job's events. The id of an event is the number of tokens up to and with it, so a reader that names it
// as Last-Event-ID goes on exactly there; the tokens before it run through the text assembler again, unseen.
class JobEventStream {
 public:
  JobEventStream(const GatewayContext& context, JobsApi& jobs, SseWriter& writer, JobView job, int32_t seen)
      : context_(context),
        jobs_(jobs),
        writer_(writer),
        job_(std::move(job)),
        text_(job_text(job_.client_json).stop),
        seen_(seen) {}

  Task<void> run(std::shared_ptr<JobEvents> events, const Exchange& exchange) {
    while (!exchange.disconnected()) {
      Result<StreamEvent> next = co_await events->next(context_.clock.after(context_.ping_interval));
      if (!next && next.error().code == ErrorCode::kDeadlineExceeded) {
        // Silence, or the job itself ran out of time: the store knows.
        const bool ended = co_await has_ended();
        if (!ended) continue;
      }
      if (!next) co_return co_await finish();
      if (auto* progress = std::get_if<PrefillProgress>(&*next)) {
        const json data = {{"fraction", progress->fraction}, {"workers", progress->ranks}};
        auto sent = co_await writer_.named_event("progress", to_text(data));
        CO_TRY(sent);
      } else if (auto* tokens = std::get_if<TokensEvent>(&*next)) {
        auto sent = co_await send_tokens(*tokens);
        CO_TRY(sent);
      } else {
        co_return co_await finish();
      }
    }
    co_return fail(ErrorCode::kCancelled, "the client went away");
  }

 private:
  Task<void> send_tokens(TokensEvent event) {
    json ids = json::array();
    std::string text;
    const int32_t end = event.first_index + static_cast<int32_t>(event.tokens.size());
    for (size_t i = 0; i < event.tokens.size(); ++i) {
      const SampledToken& token = event.tokens[i];
      const std::string piece = stopped_ ? "" : push(token);
      if (event.first_index + static_cast<int32_t>(i) < seen_) continue;
      ids.push_back(token.token);
      text += piece;
    }
    if (ids.empty()) co_return Result<void>{};
    const json data = {{"first_index", end - static_cast<int32_t>(ids.size())}, {"tokens", ids}, {"text", text}};
    co_return co_await writer_.named_event("tokens", to_text(data), std::to_string(end));
  }

  std::string push(const SampledToken& token) {
    TextPiece piece = text_.push(token, context_.codec.token_bytes(token.token));
    stopped_ = piece.stopped;
    return std::move(piece.text);
  }

  asio::awaitable<bool> has_ended() {
    Result<JobView> job = co_await jobs_.find(job_.id);
    if (!job) co_return true;
    co_return job->status != JobStatus::kQueued && job->status != JobStatus::kRunning;
  }

  // The last event holds the job as GET shows it, with its result or its error.
  Task<void> finish() {
    Result<JobView> job = co_await jobs_.find(job_.id);
    if (!job) {
      co_return co_await writer_.named_event("error", to_text(error_json(job.error())));
    }
    co_return co_await writer_.named_event("finished", to_text(job_json(*job, context_.codec, true)));
  }

  const GatewayContext& context_;
  JobsApi& jobs_;
  SseWriter& writer_;
  JobView job_;
  AnswerText text_;
  int32_t seen_;  // tokens that the reader has already
  bool stopped_ = false;
};

asio::awaitable<void> events(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const HttpRequest& http = exchange.request();
  const std::string id = http.path_params.at("id");
  const std::string_view last = http.header("last-event-id");
  const auto seen = last.empty() ? std::optional<int64_t>(0) : whole_number(last, 0, INT32_MAX);
  if (!seen) {
    const Error error{ErrorCode::kInvalidArgument, "the header Last-Event-ID is no number of tokens", "Last-Event-ID"};
    co_await exchange.respond(error_reply(error));
    co_return;
  }
  Result<JobView> job = co_await jobs.find(id);
  if (!job) {
    co_await exchange.respond(error_reply(job.error()));
    co_return;
  }
  Result<std::shared_ptr<JobEvents>> subscribed = co_await jobs.subscribe(id, 0);
  if (!subscribed) {
    co_await exchange.respond(error_reply(subscribed.error()));
    co_return;
  }
  SseWriter writer(exchange, context.executor, context.clock, context.ping_interval);
  co_await writer.begin();
  JobEventStream stream(context, jobs, writer, std::move(*job), static_cast<int32_t>(*seen));
  co_await stream.run(std::move(*subscribed), exchange);
  co_await writer.finish();
}

Task<HttpReply> no_jobs() {
  co_return fail(ErrorCode::kUnsupported, "this service keeps no jobs; start it with a job store");
}

Task<HttpReply> no_trace() {
  co_return fail(ErrorCode::kNotFound,
                 "traces are not built; usage.runahead of the job's result says where its time went");
}

}  // namespace

StopRule job_stop_rule(const TextCodec& codec, const std::string& client_json) {
  const JobText text = job_text(client_json);
  if (text.stop.empty()) return {};
  return [&codec, answer = AnswerText(text.stop)](const SampledToken& token) mutable {
    return answer.push(token, codec.token_bytes(token.token)).stopped;
  };
}

void add_jobs_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs) {
  if (jobs == nullptr) {
    for (const char* method : {"POST", "GET"})
      router.answer(method, "/v1/jobs", [](const HttpRequest&) { return no_jobs(); });
    for (const char* method : {"DELETE", "GET"})
      router.answer(method, "/v1/jobs/{id}", [](const HttpRequest&) { return no_jobs(); });
    return;
  }
  router.add("POST", "/v1/jobs",
             [&context, jobs](Exchange& exchange) { return serve_submit(context, *jobs, exchange); });
  router.answer("GET", "/v1/jobs",
                [&context, jobs](const HttpRequest& request) { return list(context, *jobs, request.query); });
  router.answer("GET", "/v1/jobs/{id}", [&context, jobs](const HttpRequest& request) {
    return show(context, *jobs, request.path_params.at("id"));
  });
  router.answer("DELETE", "/v1/jobs/{id}", [&context, jobs](const HttpRequest& request) {
    return cancel(context, *jobs, request.path_params.at("id"));
  });
  router.add("GET", "/v1/jobs/{id}/events",
             [&context, jobs](Exchange& exchange) { return events(context, *jobs, exchange); });
  router.answer("GET", "/v1/jobs/{id}/trace", [](const HttpRequest&) { return no_trace(); });
}

}  // namespace runahead
