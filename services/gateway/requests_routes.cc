#include "services/gateway/requests_routes.h"

#include "services/http/api_error.h"

namespace runahead {
namespace {

using nlohmann::json;
using Access = HttpRouter::Access;

constexpr size_t kEntryBytes = 1200, kRankBytes = 300;  // about, as JSON

json entry_json(const RequestEntry& entry, const std::string& model) {
  json body = {{"id", entry.id},
               {"trace_id", entry.trace.trace_id},
               {"object", "request"},
               {"endpoint", entry.endpoint},
               {"model", model},
               {"status", entry.status},
               {"stream", entry.stream},
               {"choices", entry.choices},
               {"created_at", entry.created_unix_s},
               {"prompt_tokens", entry.prompt_tokens},
               {"cached_tokens", entry.report ? entry.report->cached_tokens : entry.prefill.cached_tokens},
               {"completion_tokens", entry.completion_tokens},
               {"prefill", progress_json(entry.prefill)},
               {"first_token_seconds", nullptr},
               {"elapsed_seconds", entry.elapsed_seconds},
               {"runahead", nullptr},
               {"error", nullptr}};
  if (entry.first_token_seconds) body["first_token_seconds"] = *entry.first_token_seconds;
  if (entry.report) body["runahead"] = report_json(*entry.report);
  if (entry.error) body["error"] = error_json(*entry.error)["error"];
  return body;
}

Task<HttpReply> list(const GatewayContext& context, std::string owner) {
  const std::vector<RequestList::Row> rows = context.requests.of(owner);
  size_t bytes = 0;
  for (const RequestList::Row& row : rows)
    bytes += kEntryBytes + kRankBytes * (row->prefill.ranks.size() + (row->report ? row->report->ranks.size() : 0));
  const auto write = [&]() -> std::string {
    json data = json::array();
    for (const RequestList::Row& row : rows) data.push_back(entry_json(*row, context.options.model_name));
    return to_text({{"object", "list"}, {"data", std::move(data)}});
  };
  HttpReply reply;
  reply.body = co_await context.text_lane.render(bytes, write);
  co_return reply;
}

Task<HttpReply> one(const GatewayContext& context, Result<RequestList::Row> found) {
  const RequestList::Row row = CO_TRY(found);
  co_return json_reply(entry_json(*row, context.options.model_name));
}

}  // namespace

void add_requests_routes(HttpRouter& router, const GatewayContext& context) {
  router.answer(
      "GET", "/v1/requests", [&context](const HttpRequest& request) { return list(context, request.owner); },
      Access::kWatch);
  router.answer("GET", "/v1/requests/{id}", [&context](const HttpRequest& request) {
    return one(context, context.requests.find(request.owner, request.path_params.at("id")));
  });
  router.answer("DELETE", "/v1/requests/{id}", [&context](const HttpRequest& request) {
    return one(context, context.requests.cancel(request.owner, request.path_params.at("id")));
  });
}

}  // namespace runahead
