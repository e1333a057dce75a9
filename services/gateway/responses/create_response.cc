#include "services/gateway/responses/create_response.h"

#include <utility>

#include "base/wall_clock.h"
#include "services/gateway/jobs_routes.h"
#include "services/gateway/responses/background_reader.h"
#include "services/gateway/responses/conversation.h"
#include "services/gateway/tool_sink.h"
#include "services/http/api_error.h"

namespace runahead {
namespace {

using nlohmann::json;

// A request that is ready to run, and the job that it is or becomes.
struct Prepared {
  ResponseRequest asked;
  GenerationRequest generation;
  JobSubmission submission;
};

Task<ResponseRequest> read_request(const GatewayContext& context, const JobsApi* jobs, const std::string& body) {
  const ServedModel model = context.served_model();
  const auto parse = [&]() -> Result<ResponseRequest> {
    const ParsedJson parsed = TRY(parse_json_object(body));
    return parse_response(parsed, model);
  };
  Result<ResponseRequest> asked = co_await context.text_lane.run(body.size(), parse);
  if (!asked || jobs != nullptr) co_return asked;
  if (!asked->previous_id.empty()) co_return no_store("previous_response_id");
  if (asked->background) co_return no_store("background");
  asked->store = false;
  asked->shown["store"] = false;
  co_return asked;
}

Task<Prepared> prepare(const GatewayContext& context, JobsApi* jobs, HttpRequest& http) {
  std::string body = std::move(http.body);
  Result<ResponseRequest> read = co_await read_request(context, jobs, body);
  Prepared prepared;
  prepared.asked = CO_TRY(read);
  json earlier = json::array();
  if (!prepared.asked.previous_id.empty()) {
    Result<json> found = co_await conversation(context, *jobs, http.owner, prepared.asked.previous_id);
    earlier = CO_TRY(found);
  }
  JobSubmission keyed;
  if (prepared.asked.background) {
    auto taken = co_await take_idempotency_key(context, http, body, keyed);
    CO_TRY(taken);
  }
  const auto parse = [&](const json&, const ServedModel& model) {
    return response_chat(prepared.asked, earlier, model);
  };
  Result<GenerationRequest> generation = co_await prepare_generation(context, parse, std::move(body));
  if (!generation) co_return std::unexpected(in_words_of_responses(std::move(generation.error())));
  prepared.generation = std::move(*generation);
  JobSubmission& submission = prepared.submission = job_submission(context, http, prepared.generation);
  submission.id = context.new_id("resp_");
  submission.kind = kResponseKind;
  submission.idempotency_key = std::move(keyed.idempotency_key);
  submission.request_digest = std::move(keyed.request_digest);
  JobText text{.endpoint = Endpoint::kChat, .model = context.options.model_name};
  text.logprobs = prepared.generation.logprobs;
  text.tools = prepared.generation.tools.reading;
  text.trace = http.trace;
  submission.client_json = client_json_of(text, prepared.asked);
  co_return prepared;
}

// The answer as it grows: its tokens, and its events where the client streams.
class GrowingResponse final : public ChoiceSink {
 public:
  explicit GrowingResponse(ResponseEvents* events) : events_(events) {}
  Task<void> prompt(int32_t, std::vector<SampledToken>) override { co_return Result<void>{}; }
  Task<void> piece(int32_t, TextPiece piece) override {
    for (const ShownToken& token : piece.tokens) tokens.push_back(token.sampled);
    if (events_ == nullptr) co_return Result<void>{};
    co_return co_await events_->text(std::move(piece));
  }
  std::vector<SampledToken> tokens;

 private:
  ResponseEvents* events_;
};

EndedRun ended_run(std::vector<SampledToken> tokens, const ChoiceResult& result, const Result<void>& ended,
                   int64_t created_unix_ms, double total_seconds) {
  EndedRun run{
      .created_unix_ms = created_unix_ms, .error = {}, .result = {.tokens = std::move(tokens), .finished = {}}};
  if (!ended) {
    run.error = ended.error();
    return run;
  }
  FinishedEvent finished;
  finished.reason = result.finish_reason == "length" ? FinishReason::kLength : FinishReason::kStop;
  finished.generated = result.completion_tokens;
  if (result.report) finished.report = *result.report;
  finished.total_seconds = total_seconds;
  run.result.finished = std::move(finished);
  return run;
}

// What a response is before its first token, and what it stays where nothing is stored.
JobView view_of(const JobSubmission& submission, int64_t created_unix_ms) {
  JobView job;
  job.head = {.id = submission.id, .owner = submission.owner, .kind = kResponseKind, .status = JobStatus::kRunning};
  job.head.created_unix_ms = created_unix_ms;
  job.head.prompt_tokens = static_cast<int32_t>(submission.request.prompt.size());
  job.client_json = submission.client_json;
  return job;
}

JobView view_of(const JobSubmission& submission, EndedRun run) {
  JobView job = view_of(submission, run.created_unix_ms);
  job.head.status = run.error ? JobStatus::kFailed : JobStatus::kSucceeded;
  job.head.ended_unix_ms = unix_time_ms();
  job.head.completion_tokens = static_cast<int32_t>(run.result.tokens.size());
  job.head.error = std::move(run.error);
  job.result = std::make_shared<const StoredResult>(std::move(run.result));
  return job;
}

// One response while its client waits for it.
class Foreground {
 public:
  Foreground(const GatewayContext& context, JobsApi* jobs, Exchange& exchange, Prepared prepared)
      : context_(context),
        jobs_(prepared.asked.store ? jobs : nullptr),
        exchange_(exchange),
        prepared_(std::move(prepared)),
        generation_(context.executor, context.clock, context.codec, empty_answer(prepared_.generation, context.codec)) {
  }

  Task<void> run() {
    const std::string& id = prepared_.submission.id;
    const Result<void> submitted = submit(context_, exchange_.request(), id, prepared_.generation, generation_);
    if (!submitted) co_return co_await refuse(submitted.error());
    ListedRequest listed(context_.requests, entry_of(exchange_.request(), id, "responses", prepared_.generation),
                         generation_);
    exchange_.on_disconnect([this] { generation_.cancel(); });
    if (exchange_.disconnected()) generation_.cancel();
    Result<void> ended;
    if (prepared_.asked.stream) {
      ended = co_await streamed(listed);
    } else {
      ended = co_await whole(listed);
    }
    exchange_.on_disconnect(nullptr);
    listed.end(ended);
    co_return ended;
  }

 private:
  Task<void> refuse(Error error) {
    co_await exchange_.respond(error_reply(error));
    co_return std::unexpected(std::move(error));
  }

  Task<void> whole(ListedRequest& listed) {
    GrowingResponse answer(nullptr);
    const Result<void> ended = co_await generation_.run(listed.through(answer));
    if (!ended) co_return co_await refuse(ended.error());
    Result<JobView> job = co_await settle(std::move(answer.tokens), ended);
    if (!job) co_return co_await refuse(job.error());
    Result<HttpReply> reply = co_await reply_with(context_, *job);
    co_await exchange_.respond(reply_of(std::move(reply)));
    co_return Result<void>{};
  }

  Task<void> streamed(ListedRequest& listed) {
    SseWriter writer(exchange_, context_.executor, context_.clock, context_.options.ping_interval);
    co_await writer.begin();
    const JobView begun = view_of(prepared_.submission, created_unix_ms_);
    ResponseEvents events(writer, context_.codec, begun);
    Result<void> ended = co_await events.begin(begun);
    GrowingResponse answer(&events);
    if (ended) ended = co_await generation_.run(listed.through(answer));
    if (!ended) generation_.cancel();
    if (ended || ended.error().code != ErrorCode::kCancelled) {
      Result<JobView> job = co_await settle(std::move(answer.tokens), ended);
      if (!job) {
        EndedRun failed{.created_unix_ms = created_unix_ms_, .error = job.error(), .result = {}};
        job = view_of(prepared_.submission, std::move(failed));
        ended = std::unexpected(*job->head.error);
      }
      co_await events.end(*job);
    }
    co_await writer.finish();
    co_return ended;
  }

  // Durable before the client is told of the end.
  Task<JobView> settle(std::vector<SampledToken> tokens, const Result<void>& ended) {
    const double elapsed = seconds(context_.clock.now() - exchange_.request().received_at);
    EndedRun run = ended_run(std::move(tokens), generation_.results().front(), ended, created_unix_ms_, elapsed);
    if (jobs_ == nullptr) co_return view_of(prepared_.submission, std::move(run));
    co_return co_await jobs_->keep(prepared_.submission, std::move(run));
  }

  const GatewayContext& context_;
  JobsApi* jobs_;  // null: nothing is stored
  Exchange& exchange_;
  Prepared prepared_;
  Generation generation_;
  int64_t created_unix_ms_ = unix_time_ms();
};

Task<void> in_background(const GatewayContext& context, JobsApi& jobs, Exchange& exchange, Prepared prepared) {
  const std::string owner = prepared.submission.owner;
  Result<JobView> job = co_await jobs.submit(std::move(prepared.submission));
  // A repeat may find the first one waiting, whose texts are in the store alone.
  if (job && job->client_json.empty()) job = co_await jobs.find(owner, job->head.id);
  if (!job) {
    co_await exchange.respond(error_reply(job.error()));
    co_return std::unexpected(std::move(job.error()));
  }
  if (prepared.asked.stream) {
    BackgroundReader reader(context, jobs, exchange, std::move(*job));
    co_return co_await reader.run(/*seen=*/-1);
  }
  Result<HttpReply> reply = co_await reply_with(context, *job);
  co_await exchange.respond(reply_of(std::move(reply)));
  co_return Result<void>{};
}

}  // namespace

std::unexpected<Error> no_store(const char* param) {
  return fail(ErrorCode::kUnsupported, "this service keeps no responses; start it with a job store", param);
}

Task<HttpReply> reply_with(const GatewayContext& context, const JobView& job) {
  const auto write = [&]() -> Result<std::string> { return to_text(response_json(job, context.codec)); };
  auto written = co_await context.text_lane.render(text_bytes(job), write);
  HttpReply reply;
  reply.body = CO_TRY(written);
  if (job.result && job.result->finished)
    reply.headers.emplace_back("Server-Timing", server_timing(job.result->finished->report));
  co_return reply;
}

Task<void> create_response(const GatewayContext& context, JobsApi* jobs, Exchange& exchange) {
  Result<Prepared> prepared = co_await prepare(context, jobs, exchange.request());
  exchange.body_is_gone();
  if (!prepared) {
    co_await exchange.respond(error_reply(prepared.error()));
    co_return std::unexpected(std::move(prepared.error()));
  }
  if (prepared->asked.background) co_return co_await in_background(context, *jobs, exchange, std::move(*prepared));
  Foreground foreground(context, jobs, exchange, std::move(*prepared));
  co_return co_await foreground.run();
}

}  // namespace runahead
