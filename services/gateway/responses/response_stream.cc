#include "services/gateway/responses/response_stream.h"

#include <utility>

#include "base/json_text.h"

namespace runahead {
namespace {

using nlohmann::json;

json of_response(json response) { return {{"response", std::move(response)}}; }
json of_output(size_t index, json item) { return {{"output_index", index}, {"item", std::move(item)}}; }

json with(json event, const char* field, json value) {
  event[field] = std::move(value);
  return event;
}

}  // namespace

Task<void> ResponseEvents::send(const char* type, json event) {
  event["type"] = type;
  event["sequence_number"] = next_;
  if (next_++ <= seen_) co_return Result<void>{};
  co_return co_await writer_.named_event(type, to_text(event));
}

// Of the open part.
json ResponseEvents::of_item() const {
  const size_t index = parts_.parts().size() - 1;
  return {{"item_id", item_id(id_, index, parts_.parts().back().call.has_value())}, {"output_index", index}};
}
json ResponseEvents::of_text() const { return with(of_item(), "content_index", 0); }
json ResponseEvents::logprobs(std::span<const ShownToken> tokens) const {
  return kept_.text.logprobs ? chat_logprobs(tokens, codec_)["content"] : json::array();
}

Task<void> ResponseEvents::begin(const JobView& job) {
  json response = response_json(job, codec_);
  auto created = co_await send("response.created", of_response(response));
  CO_TRY(created);
  response["status"] = "in_progress";
  co_return co_await send("response.in_progress", of_response(response));
}

Task<void> ResponseEvents::text(TextPiece piece) {
  const bool waits = parts_.parts().empty();
  std::vector<TextPiece> pieces = parts_.split(std::move(piece));
  auto shown = co_await show(std::move(pieces));
  CO_TRY(shown);
  if (waits && !parts_.parts().empty()) co_return co_await writer_.flush();
  co_return Result<void>{};
}

Task<void> ResponseEvents::show(std::vector<TextPiece> pieces) {
  for (const TextPiece& piece : pieces) {
    const bool begins = parts_.begins(piece);
    if (begins) {
      auto closed = co_await close_part("completed");
      CO_TRY(closed);
    }
    parts_.add(piece);
    if (begins) {
      auto opened = co_await open_part();
      CO_TRY(opened);
    }
    auto sent = co_await send_delta(piece);
    CO_TRY(sent);
  }
  co_return Result<void>{};
}

Task<void> ResponseEvents::open_part() {
  const size_t index = parts_.parts().size() - 1;
  const OutputPart& part = parts_.parts().back();
  json item = output_item(id_, index, part, "in_progress");
  auto added = co_await send("response.output_item.added", of_output(index, std::move(item)));
  CO_TRY(added);
  if (part.call) co_return Result<void>{};
  co_return co_await send("response.content_part.added", with(of_text(), "part", text_part("", nullptr)));
}

Task<void> ResponseEvents::send_delta(const TextPiece& piece) {
  if (piece.call && !piece.call->arguments.empty())
    co_return co_await send("response.function_call_arguments.delta", with(of_item(), "delta", piece.call->arguments));
  if (piece.call || piece.text.empty()) co_return Result<void>{};
  json event = with(of_text(), "delta", piece.text);
  event["logprobs"] = logprobs(piece.tokens);
  co_return co_await send("response.output_text.delta", std::move(event));
}

Task<void> ResponseEvents::close_text(const OutputPart& part) {
  const json scored = logprobs(part.tokens);
  json event = with(of_text(), "text", part.text);
  event["logprobs"] = scored;
  auto sent = co_await send("response.output_text.done", std::move(event));
  CO_TRY(sent);
  co_return co_await send("response.content_part.done", with(of_text(), "part", text_part(part.text, scored)));
}

Task<void> ResponseEvents::close_part(const char* status) {
  if (parts_.parts().empty()) co_return Result<void>{};
  const OutputPart& part = parts_.parts().back();
  json item = output_item(id_, parts_.parts().size() - 1, part, status);
  if (part.call) {
    json event = with(of_item(), "arguments", part.call->arguments);
    event["name"] = part.call->name;
    auto sent = co_await send("response.function_call_arguments.done", std::move(event));
    CO_TRY(sent);
  } else {
    item["content"][0]["logprobs"] = logprobs(part.tokens);
    auto sent = co_await close_text(part);
    CO_TRY(sent);
  }
  co_return co_await send("response.output_item.done", of_output(parts_.parts().size() - 1, std::move(item)));
}

// OpenAI has no event for what was cancelled; the response in it says so.
Task<void> ResponseEvents::end(const JobView& job) {
  std::vector<TextPiece> rest = parts_.rest();
  auto shown = co_await show(std::move(rest));
  CO_TRY(shown);
  if (parts_.parts().empty() && job.head.status == JobStatus::kSucceeded) {
    parts_.begin_text();
    auto opened = co_await open_part();
    CO_TRY(opened);
  }
  const json response = response_json(job, codec_);
  const std::string status = response["status"];
  auto closed = co_await close_part(status == "completed" ? "completed" : "incomplete");
  CO_TRY(closed);
  const char* type = status == "completed" ? "response.completed"
                     : status == "failed"  ? "response.failed"
                                           : "response.incomplete";
  co_return co_await send(type, of_response(response));
}

}  // namespace runahead
