#include "services/gateway/jobs_routes.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <set>

#include "base/sha256.h"
#include "services/gateway/api_time.h"
#include "services/gateway/job_text.h"
#include "services/gateway/request/json_reader.h"
#include "services/gateway/trace_routes.h"
#include "services/http/api_error.h"
#include "services/http/http_target.h"
#include "services/http/sse_writer.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr int32_t kListDefault = 50;
constexpr size_t kIdempotencyKeyBytesMax = 256;
constexpr size_t kJobIdBytesMax = 64;
constexpr size_t kRowBytes = 400;  // about, of one job in a list

}  // namespace

json openai_answer(const JobView& job, const TextCodec& codec) {
  const JobText text = job_text(job.client_json);
  JobAnswer answer = job_answer(job, text, codec);
  const AnswerHead head{text.endpoint, job.head.id, text.model, job.head.created_unix_ms / 1000};
  return answer_body(head, std::span(&answer.choice, 1), text.logprobs, codec,
                     usage_json(job.head.prompt_tokens, std::span(&answer.result, 1), /*choices_per_prompt=*/1));
}

namespace {

// Without its result: a row of a list.
json head_json(const JobView& job) {
  const JobHead& head = job.head;
  return {{"id", head.id},
          {"object", "job"},
          {"status", name(head.status)},
          {"endpoint", head.kind},
          {"created_at", seconds_or_null(head.created_unix_ms)},
          {"ended_at", seconds_or_null(head.ended_unix_ms)},
          {"prompt_tokens", head.prompt_tokens},
          {"completion_tokens", head.completion_tokens},
          {"prefill_fraction", job.prefill_fraction},
          {"result", nullptr},
          {"error", head.error ? error_json(*head.error)["error"] : json(nullptr)}};
}

json job_json(const JobView& job, const TextCodec& codec) {
  json body = head_json(job);
  if (const std::string trace_id = trace_of_job(job.client_json).trace_id; !trace_id.empty())
    body["trace_id"] = trace_id;
  if (job.result && job.head.status == JobStatus::kSucceeded) body["result"] = openai_answer(job, codec);
  return body;
}

Task<std::string> job_text_json(const GatewayContext& context, JobView job) {
  const auto write = [&]() -> Result<std::string> { return to_text(job_json(job, context.codec)); };
  co_return co_await context.text_lane.render(text_bytes(job), write);
}

Task<HttpReply> job_reply(const GatewayContext& context, JobView job, int status = 200) {
  auto written = co_await job_text_json(context, std::move(job));
  HttpReply reply{.status = status};
  reply.body = CO_TRY(written);
  co_return reply;
}

}  // namespace

Result<JobSubmission> openai_job(const GatewayContext& context, const HttpRequest& http,
                                 const GenerationRequest& request) {
  if (request.num_choices() != 1)
    return fail(ErrorCode::kUnsupported, "a job has one prompt and n = 1; submit one job for each", "n");
  if (request.stream)
    return fail(ErrorCode::kUnsupported, "a job does not stream; read /v1/jobs/{id}/events", "stream");
  if (request.max_tokens == 0)
    return fail(ErrorCode::kUnsupported, "a job makes tokens; ask for at least one", "max_tokens");
  if (request.scores_prompt())
    return fail(ErrorCode::kUnsupported,
                "a job keeps no log-probabilities of the prompt; leave out echo or logprobs, or use /v1/completions",
                "logprobs");
  const JobText text{request.endpoint,   context.options.model_name, echoed(request, 0),    request.stop,
                     request.min_tokens, request.logprobs,           request.tools.reading, http.trace};
  JobSubmission result = job_submission(context, http, request);
  result.kind = request.endpoint == Endpoint::kChat ? "chat" : "completions";
  result.client_json = to_text(to_json(text));
  return result;
}

namespace {

// Of the body as JSON: spaces and the order of keys make no other request.
Result<std::string> digest_of(const std::string& body) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  const std::string canonical = to_text(parsed);
  return hex(sha256(canonical));
}

Task<HttpReply> submit(const GatewayContext& context, JobsApi& jobs, HttpRequest& http) {
  JobSubmission keyed;
  auto taken = co_await take_idempotency_key(context, http, http.body, keyed);
  CO_TRY(taken);
  Result<GenerationRequest> prepared =
      co_await prepare_generation(context, openai_body(std::nullopt), std::move(http.body));
  if (!prepared) co_return std::unexpected(std::move(prepared.error()));
  JobSubmission submitted = CO_TRY(openai_job(context, http, *prepared));
  submitted.idempotency_key = std::move(keyed.idempotency_key);
  submitted.request_digest = std::move(keyed.request_digest);
  Result<JobView> job = co_await jobs.submit(std::move(submitted));
  if (!job) co_return std::unexpected(std::move(job.error()));
  const std::string location = "/v1/jobs/" + job->head.id;
  auto replied = co_await job_reply(context, std::move(*job), 202);
  HttpReply reply = CO_TRY(replied);
  reply.headers.emplace_back("Location", location);
  co_return reply;
}

asio::awaitable<void> serve_submit(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const Time received_at = exchange.request().received_at;
  Result<HttpReply> result = co_await submit(context, jobs, exchange.request());
  exchange.body_is_gone();
  const RequestStatus status = result ? RequestStatus::kOk : request_status(result.error());
  HttpReply reply = reply_of(std::move(result));
  co_await exchange.respond(std::move(reply));
  context.metrics.http_request("jobs", status, seconds(context.clock.now() - received_at));
}

// ?limit=50&after=job-...
Result<JobQuery> job_query(std::string owner, std::string_view text) {
  JobQuery query{.owner = std::move(owner), .limit = kListDefault};
  const auto refused = [](const std::string& param) {
    return fail(ErrorCode::kInvalidArgument,
                "a list of jobs takes limit, from 1 to 1000, and after, the id of the last job of the page before",
                param);
  };
  const std::vector<QueryParam> params = TRY(parse_query(text));
  std::set<std::string_view> seen;
  for (const auto& [name, value] : params) {
    const auto limit = name == "limit" ? whole_number(value, 1, limits::kJobsListMax) : std::nullopt;
    const bool is_after = name == "after" && !value.empty() && value.size() <= kJobIdBytesMax;
    if (!seen.insert(name).second || (!limit && !is_after)) return refused(name);
    if (limit) query.limit = static_cast<int32_t>(*limit);
    if (is_after) query.after = value;
  }
  return query;
}

Task<HttpReply> list(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string query_text) {
  JobQuery query = CO_TRY(job_query(std::move(owner), query_text));
  const auto page = static_cast<size_t>(query.limit);
  ++query.limit;  // the one more tells whether there are more
  Result<std::vector<JobView>> found = co_await jobs.list(std::move(query));
  std::vector<JobView> rows = CO_TRY(found);
  const bool has_more = rows.size() > page;
  if (has_more) rows.resize(page);
  const auto write = [&]() -> Result<std::string> {
    json data = json::array();
    for (const JobView& job : rows) data.push_back(head_json(job));
    const json first = rows.empty() ? json(nullptr) : json(rows.front().head.id);
    const json last = rows.empty() ? json(nullptr) : json(rows.back().head.id);
    return to_text({{"object", "list"},
                    {"data", std::move(data)},
                    {"first_id", first},
                    {"last_id", last},
                    {"has_more", has_more}});
  };
  auto written = co_await context.text_lane.render(rows.size() * kRowBytes, write);
  HttpReply reply;
  reply.body = CO_TRY(written);
  co_return reply;
}

Task<HttpReply> show(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await jobs.find(std::move(owner), std::move(id));
  JobView job = CO_TRY(found);
  co_return co_await job_reply(context, std::move(job));
}

Task<HttpReply> cancel(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await jobs.cancel(std::move(owner), std::move(id));
  JobView job = CO_TRY(found);
  co_return co_await job_reply(context, std::move(job));
}

// One reader of a job's events. The id of an event is the number of tokens up to and with it, so a reader that names it
// as Last-Event-ID goes on exactly there; the tokens before it run through the text assembler again, unseen.
class JobEventStream {
 public:
  JobEventStream(const GatewayContext& context, JobsApi& jobs, SseWriter& writer, std::string owner, const JobView& job,
                 int32_t seen)
      : context_(context),
        jobs_(jobs),
        writer_(writer),
        owner_(std::move(owner)),
        id_(job.head.id),
        text_(job_text(job.client_json).empty_answer(context.codec)),
        seen_(seen) {}

  Task<void> run(std::shared_ptr<JobEvents> events, const Exchange& exchange) {
    while (!exchange.disconnected()) {
      Result<StreamEvent> next = co_await events->next(context_.clock.after(context_.options.ping_interval));
      if (!next && next.error().code == ErrorCode::kDeadlineExceeded) {
        // Silence, or the job itself ran out of time: the store knows.
        const bool ended = co_await has_ended();
        if (!ended && context_.is_over()) break;
        if (!ended) continue;
      }
      if (!next) co_return co_await finish();
      if (auto* progress = std::get_if<PrefillProgress>(&*next)) {
        auto sent = co_await writer_.named_event("progress", to_text(progress_json(*progress)));
        CO_TRY(sent);
      } else if (auto* tokens = std::get_if<TokensEvent>(&*next)) {
        auto sent = co_await send_tokens(*tokens);
        CO_TRY(sent);
      } else {
        co_return co_await finish();
      }
    }
    co_return fail(ErrorCode::kCancelled, "the client went away, or the service did");
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
    Result<JobView> job = co_await jobs_.find(owner_, id_);
    co_return !job || runahead::has_ended(job->head.status);
  }

  // The last event holds the job as GET shows it, with its result or its error.
  Task<void> finish() {
    Result<JobView> job = co_await jobs_.find(owner_, id_);
    Result<std::string> written = std::string();
    if (job) written = co_await job_text_json(context_, std::move(*job));
    if (!job || !written) {
      const Error& error = job ? written.error() : job.error();
      co_return co_await writer_.named_event("error", to_text(error_json(error)));
    }
    co_return co_await writer_.named_event("finished", std::move(*written));
  }

  const GatewayContext& context_;
  JobsApi& jobs_;
  SseWriter& writer_;
  std::string owner_, id_;
  IncrementalDetokenizer text_;
  int32_t seen_;  // tokens that the reader has already
  bool stopped_ = false;
};

asio::awaitable<void> events(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const HttpRequest& http = exchange.request();
  const std::string id = http.path_params.at("id"), owner = http.owner;
  const std::string_view last = http.header("last-event-id");
  const bool from_start = !http.headers.contains("last-event-id");
  const auto seen = from_start ? std::optional<int64_t>(0) : whole_number(last, 0, INT32_MAX);
  if (!seen) {
    const Error error{ErrorCode::kInvalidArgument, "the header Last-Event-ID is no number of tokens", "Last-Event-ID"};
    co_await exchange.respond(error_reply(error));
    co_return;
  }
  Result<JobView> job = co_await jobs.find(owner, id);
  if (!job) {
    co_await exchange.respond(error_reply(job.error()));
    co_return;
  }
  Result<std::shared_ptr<JobEvents>> subscribed = co_await jobs.subscribe(owner, id, 0);
  if (!subscribed) {
    co_await exchange.respond(error_reply(subscribed.error()));
    co_return;
  }
  SseWriter writer(exchange, context.executor, context.clock, context.options.ping_interval);
  co_await writer.begin();
  JobEventStream stream(context, jobs, writer, owner, *job, static_cast<int32_t>(*seen));
  co_await stream.run(std::move(*subscribed), exchange);
  co_await writer.finish();
}

Task<HttpReply> no_jobs() {
  co_return fail(ErrorCode::kUnsupported, "this service keeps no jobs; start it with a job store");
}

}  // namespace

JobSubmission job_submission(const GatewayContext& context, const HttpRequest& http, const GenerationRequest& request) {
  JobSubmission result;
  result.request = inference_request(request, 0, context.served_model(), context.codec);
  result.request.deadline = context.options.job_timeout;
  result.request.trace_id = http.trace.trace_id;
  result.request.cache_salt = salt_of(http, result.request.cache_salt);
  result.request.received_at = http.received_at;
  result.owner = http.owner;
  return result;
}

Task<void> take_idempotency_key(const GatewayContext& context, const HttpRequest& http, const std::string& body,
                                JobSubmission& submission) {
  submission.idempotency_key = http.header("idempotency-key");
  if (!http.headers.contains("idempotency-key")) co_return Result<void>{};
  if (submission.idempotency_key.empty())
    co_return fail(ErrorCode::kInvalidArgument, "the header Idempotency-Key is empty; send a key, or leave it out",
                   "Idempotency-Key");
  if (submission.idempotency_key.size() > kIdempotencyKeyBytesMax)
    co_return fail(ErrorCode::kInvalidArgument, "the header Idempotency-Key is longer than 256 bytes",
                   "Idempotency-Key");
  const auto digest_body = [&body] { return digest_of(body); };
  auto digested = co_await context.text_lane.run(body.size(), digest_body);
  submission.request_digest = CO_TRY(digested);
  co_return Result<void>{};
}

void add_jobs_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs) {
  if (jobs == nullptr) {
    for (const char* method : {"POST", "GET"})
      router.answer(method, "/v1/jobs", [](const HttpRequest&) { return no_jobs(); });
    for (const char* method : {"DELETE", "GET"})
      router.answer(method, "/v1/jobs/{id}", [](const HttpRequest&) { return no_jobs(); });
    router.answer("GET", "/v1/jobs/{id}/events", [](const HttpRequest&) { return no_jobs(); });
    return;
  }
  router.add("POST", "/v1/jobs",
             [&context, jobs](Exchange& exchange) { return serve_submit(context, *jobs, exchange); });
  router.answer(
      "GET", "/v1/jobs",
      [&context, jobs](const HttpRequest& request) { return list(context, *jobs, request.owner, request.query); },
      HttpRouter::Rules{.access = HttpRouter::Access::kWatch,
                        .query = {"limit", "after"}});  // the page asks each second
  router.answer("GET", "/v1/jobs/{id}", [&context, jobs](const HttpRequest& request) {
    return show(context, *jobs, request.owner, request.path_params.at("id"));
  });
  router.answer("DELETE", "/v1/jobs/{id}", [&context, jobs](const HttpRequest& request) {
    return cancel(context, *jobs, request.owner, request.path_params.at("id"));
  });
  router.add("GET", "/v1/jobs/{id}/events",
             [&context, jobs](Exchange& exchange) { return events(context, *jobs, exchange); });
}

}  // namespace runahead
