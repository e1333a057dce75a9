#include "services/gateway/responses/responses_routes.h"

#include <algorithm>
#include <set>

#include "services/gateway/list_page.h"
#include "services/gateway/responses/background_reader.h"
#include "services/gateway/responses/conversation.h"
#include "services/gateway/responses/create_response.h"
#include "services/http/api_error.h"
#include "services/http/http_target.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr Duration kEndTimeout = std::chrono::seconds(30);  // a cancelled answer ends at its next token

asio::awaitable<void> serve(const GatewayContext& context, JobsApi* jobs, Exchange& exchange) {
  const Time received_at = exchange.request().received_at;
  const Result<void> ended = co_await create_response(context, jobs, exchange);
  const RequestStatus status = ended ? RequestStatus::kOk : request_status(ended.error());
  context.metrics.http_request("responses", status, seconds(context.clock.now() - received_at));
}

bool is_switch(std::string_view value) { return value == "true" || value == "false"; }

// What a response always shows, or what changes no text.
bool changes_nothing(const QueryParam& param) {
  if (param.name == "include" || param.name == "include[]") return param.value == "message.output_text.logprobs";
  return param.name == "include_obfuscation" && is_switch(param.value);
}

struct ShowQuery {
  bool stream = false;
  int64_t seen = -1;
};

Result<ShowQuery> show_query(std::string_view text) {
  ShowQuery query;
  std::set<std::string> seen;
  for (const QueryParam& param : TRY(parse_query(text))) {
    const auto after = param.name == "starting_after" ? whole_number(param.value, 0, INT32_MAX) : std::nullopt;
    const bool is_stream = param.name == "stream" && is_switch(param.value);
    if (changes_nothing(param)) continue;
    if (!seen.insert(param.name).second || (!after && !is_stream))
      return fail(ErrorCode::kInvalidArgument,
                  "a response is shown with stream (true or false), starting_after (the number of an event), include "
                  "(message.output_text.logprobs) and include_obfuscation",
                  param.name);
    if (is_stream) query.stream = param.value == "true";
    if (after) query.seen = *after;
  }
  if (query.seen >= 0 && !query.stream)
    return fail(ErrorCode::kInvalidArgument, "starting_after goes with stream=true", "starting_after");
  return query;
}

bool in_background(const JobView& job) { return kept_response(job.client_json).shown.value("background", false); }

Task<void> show(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const HttpRequest& http = exchange.request();
  const ShowQuery query = CO_TRY(show_query(http.query));
  Result<JobView> found = co_await find_response(jobs, http.owner, http.path_params.at("id"));
  JobView job = CO_TRY(found);
  if (!query.stream) {
    Result<HttpReply> written = co_await reply_with(context, job);
    HttpReply reply = CO_TRY(written);
    co_await exchange.respond(std::move(reply));
    co_return Result<void>{};
  }
  if (!in_background(job))
    co_return fail(ErrorCode::kInvalidArgument, "only a response with \"background\": true has events to follow",
                   "stream");
  BackgroundReader reader(context, jobs, exchange, std::move(job));
  co_await reader.run(query.seen);  // it has answered by itself, whatever happened
  co_return Result<void>{};
}

asio::awaitable<void> serve_show(const GatewayContext& context, JobsApi& jobs, Exchange& exchange) {
  const Result<void> shown = co_await show(context, jobs, exchange);
  if (!shown) co_await exchange.respond(error_reply(shown.error()));
}

// Ends it if it runs, and waits for its end.
Task<void> end_now(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> job = co_await jobs.cancel(owner, id);
  if (!job) co_return std::unexpected(std::move(job.error()));
  if (has_ended(job->head.status)) co_return Result<void>{};
  auto subscribed = co_await jobs.subscribe(owner, id, INT32_MAX);
  const std::shared_ptr<JobEvents> events = CO_TRY(subscribed);
  const Deadline deadline = context.clock.after(kEndTimeout);
  Result<StreamEvent> next = co_await events->next(deadline);
  while (next && !std::holds_alternative<FinishedEvent>(*next)) next = co_await events->next(deadline);
  if (!next && next.error().code == ErrorCode::kDeadlineExceeded)
    co_return fail(ErrorCode::kUnavailable, "the response is being cancelled; try again");
  co_return Result<void>{};
}

Task<HttpReply> cancel(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await find_response(jobs, owner, id);
  JobView job = CO_TRY(found);
  if (!in_background(job))
    co_return fail(ErrorCode::kInvalidArgument,
                   "only a response with \"background\": true is cancelled here; close the connection of another one",
                   "id");
  auto ended = co_await end_now(context, jobs, owner, id);
  CO_TRY(ended);
  found = co_await find_response(jobs, owner, id);
  job = CO_TRY(found);
  co_return co_await reply_with(context, job);
}

Task<HttpReply> remove(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await find_response(jobs, owner, id);
  CO_TRY(found);
  auto ended = co_await end_now(context, jobs, owner, id);
  CO_TRY(ended);
  auto removed = co_await jobs.remove(owner, id);
  CO_TRY(removed);
  co_return json_reply({{"id", id}, {"object", "response"}, {"deleted", true}});
}

Result<ListPage> items_page(std::string_view query) {
  std::vector<QueryParam> params = TRY(parse_query(query));
  std::erase_if(params, changes_nothing);
  return parse_list_page(params, /*limit_default=*/20, /*limit_max=*/100);  // OpenAI's
}

// Everything that was read for this response, with what the conversation had before.
Task<HttpReply> items(const GatewayContext& context, JobsApi& jobs, const HttpRequest& http) {
  const std::string owner = http.owner, id = http.path_params.at("id");
  const ListPage page = CO_TRY(items_page(http.query));
  Result<JobView> found = co_await find_response(jobs, owner, id);
  const JobView job = CO_TRY(found);
  const KeptResponse kept = kept_response(job.client_json);
  json all = json::array();
  if (const json previous = kept.shown.value("previous_response_id", json()); previous.is_string()) {
    Result<json> earlier = co_await conversation(context, jobs, owner, previous.get<std::string>());
    all = CO_TRY(earlier);
  }
  for (json& item : input_items(id, kept)) all.push_back(std::move(item));
  const auto write = [&]() -> Result<HttpReply> {
    std::vector<json> newest_first(all.rbegin(), all.rend());
    return json_reply(TRY(list_json(std::move(newest_first), page)));
  };
  co_return co_await context.text_lane.render(job.client_json.size(), write);
}

Task<HttpReply> nothing_kept() { co_return no_store("id"); }

}  // namespace

void add_responses_routes(HttpRouter& router, const GatewayContext& context, JobsApi* jobs) {
  router.add("POST", "/v1/responses", [&context, jobs](Exchange& exchange) { return serve(context, jobs, exchange); });
  const auto answer = [&](const char* method, const char* pattern, auto route, std::vector<std::string> query = {}) {
    const auto served = [&context, jobs, route](const HttpRequest& http) {
      return jobs == nullptr ? nothing_kept() : route(context, *jobs, http);
    };
    router.answer(method, pattern, served, HttpRouter::Rules{.query = std::move(query)});
  };
  const HttpRouter::Rules show_rules{
      .query = {"stream", "starting_after", "include", "include[]", "include_obfuscation"}};
  if (jobs == nullptr) {
    router.answer("GET", "/v1/responses/{id}", [](const HttpRequest&) { return nothing_kept(); }, show_rules);
  } else {
    router.add(
        "GET", "/v1/responses/{id}",
        [&context, jobs](Exchange& exchange) { return serve_show(context, *jobs, exchange); }, show_rules);
  }
  answer("DELETE", "/v1/responses/{id}", [](const auto& with, JobsApi& all, const HttpRequest& http) {
    return remove(with, all, http.owner, http.path_params.at("id"));
  });
  answer("POST", "/v1/responses/{id}/cancel", [](const auto& with, JobsApi& all, const HttpRequest& http) {
    return cancel(with, all, http.owner, http.path_params.at("id"));
  });
  answer("GET", "/v1/responses/{id}/input_items",
         [](const auto& with, JobsApi& all, const HttpRequest& http) { return items(with, all, http); },
         {"limit", "order", "after", "include", "include[]"});
}

}  // namespace runahead
