#include "services/gateway/responses/response_stream.h"

#include <utility>

#include "base/json_text.h"

namespace runahead {
namespace {

using nlohmann::json;

json of_response(json response) { return {{"response", std::move(response)}}; }
json of_item(json item) { return {{"output_index", 0}, {"item", std::move(item)}}; }

}  // namespace

Task<void> ResponseEvents::send(const char* type, json event) {
  event["type"] = type;
  event["sequence_number"] = next_;
  if (next_++ <= seen_) co_return Result<void>{};
  co_return co_await writer_.named_event(type, to_text(event));
}

json ResponseEvents::of_part() const { return {{"item_id", item_id(id_)}, {"output_index", 0}, {"content_index", 0}}; }

Task<void> ResponseEvents::begin(const JobView& job) {
  id_ = job.head.id;
  logprobs_ = kept_response(job.client_json).text.logprobs;
  json response = response_json(job, codec_);
  auto created = co_await send("response.created", of_response(response));
  CO_TRY(created);
  response["status"] = "in_progress";
  co_return co_await send("response.in_progress", of_response(response));
}

Task<void> ResponseEvents::open_item() {
  if (std::exchange(open_, true)) co_return Result<void>{};
  const json item = begun_item(id_);
  auto added = co_await send("response.output_item.added", of_item(item));
  CO_TRY(added);
  json event = of_part();
  event["part"] = text_part("");
  co_return co_await send("response.content_part.added", std::move(event));
}

Task<void> ResponseEvents::text(TextPiece piece) {
  const bool first = !open_;
  auto opened = co_await open_item();
  CO_TRY(opened);
  if (!piece.text.empty()) {
    json event = of_part();
    event["delta"] = std::move(piece.text);
    event["logprobs"] = logprobs_ ? chat_logprobs(piece.tokens, codec_)["content"] : json::array();
    auto sent = co_await send("response.output_text.delta", std::move(event));
    CO_TRY(sent);
  }
  if (first) co_return co_await writer_.flush();
  co_return Result<void>{};
}

Task<void> ResponseEvents::close_item(const JobView& job) {
  const json item = output_item(job, kept_response(job.client_json), codec_);
  const json& part = item["content"].front();
  json text = of_part(), ended = of_part();
  text["text"] = part["text"];
  text["logprobs"] = part["logprobs"];
  auto sent = co_await send("response.output_text.done", std::move(text));
  CO_TRY(sent);
  ended["part"] = part;
  sent = co_await send("response.content_part.done", std::move(ended));
  CO_TRY(sent);
  co_return co_await send("response.output_item.done", of_item(item));
}

// OpenAI has no event for what was cancelled; the response in it says so.
Task<void> ResponseEvents::end(const JobView& job) {
  const json response = response_json(job, codec_);
  const bool answered = !response["output"].empty();
  if (job.head.status == JobStatus::kSucceeded) {
    auto opened = co_await open_item();
    CO_TRY(opened);
  }
  if (open_ && answered) {
    auto closed = co_await close_item(job);
    CO_TRY(closed);
  }
  const char* type = response["status"] == "completed" ? "response.completed"
                     : response["status"] == "failed"  ? "response.failed"
                                                       : "response.incomplete";
  co_return co_await send(type, of_response(response));
}

}  // namespace runahead
