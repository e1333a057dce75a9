#include "services/gateway/messages_routes.h"

#include <array>
#include <utility>

#include "services/gateway/messages_body.h"
#include "services/gateway/text_routes.h"
#include "services/http/api_error.h"
#include "services/http/sse_writer.h"

namespace runahead {
namespace {

using nlohmann::json;

Result<GenerationRequest> parse_answered(const json& body, const ServedModel& model) {
  return parse_messages(body, model, MessagesUse::kAnswer);
}

HttpReply refusal(const Error& error) {
  HttpReply reply = error_reply(error);
  reply.body = to_text(message_error(error));
  return reply;
}

class WholeMessage final : public ChoiceSink {
 public:
  Task<void> prompt(int32_t, std::vector<SampledToken>) override { co_return Result<void>{}; }
  Task<void> piece(int32_t, TextPiece piece) override {
    text += piece.text;
    co_return Result<void>{};
  }
  std::string text;
};

// The first piece opens message and block, also where it is without text.
class StreamedMessage final : public ChoiceSink {
 public:
  StreamedMessage(SseWriter& writer, const MessageHead& head) : writer_(writer), head_(head) {}

  Task<void> prompt(int32_t, std::vector<SampledToken>) override { co_return Result<void>{}; }
  Task<void> piece(int32_t, TextPiece piece) override {
    const bool first = !begun_;
    auto begun = co_await begin();
    CO_TRY(begun);
    if (!piece.text.empty()) {
      auto sent = co_await send(content_block_delta(piece.text));
      CO_TRY(sent);
    }
    if (first) co_return co_await writer_.flush();
    co_return Result<void>{};
  }
  Task<void> begin() {
    if (std::exchange(begun_, true)) co_return Result<void>{};
    auto sent = co_await send(message_start(head_));
    CO_TRY(sent);
    co_return co_await send(content_block_start());
  }
  Task<void> send(const json& event) { return writer_.named_event(event["type"].get<std::string>(), to_text(event)); }

 private:
  SseWriter& writer_;
  const MessageHead& head_;
  bool begun_ = false;
};

Task<void> answer_whole(const GatewayContext& context, Exchange& exchange, Generation& generation,
                        ListedRequest& listed, const MessageHead& head) {
  WholeMessage answer;
  const Result<void> ended = co_await generation.run(listed.through(answer));
  if (!ended) {
    co_await exchange.respond(refusal(ended.error()));
    co_return ended;
  }
  const ChoiceResult& result = generation.results().front();
  HttpReply reply = co_await context.text_lane.render(
      answer.text.size(), [&] { return json_reply(message_body(head, answer.text, result)); });
  if (result.report) reply.headers.emplace_back("Server-Timing", server_timing(*result.report));
  co_await exchange.respond(std::move(reply));
  co_return Result<void>{};
}

Task<void> end_stream(StreamedMessage& answer, const Result<void>& ended, const MessageHead& head,
                      const Generation& generation) {
  if (!ended) {
    auto told = co_await answer.send(message_error(ended.error()));
    co_return told;
  }
  auto begun = co_await answer.begin();
  CO_TRY(begun);
  const std::array<json, 3> events = {content_block_stop(), message_delta(head, generation.results().front()),
                                      message_stop()};
  for (const json& event : events) {
    auto sent = co_await answer.send(event);
    CO_TRY(sent);
  }
  co_return Result<void>{};
}

Task<void> answer_streamed(const GatewayContext& context, Exchange& exchange, Generation& generation,
                           ListedRequest& listed, const MessageHead& head) {
  SseWriter writer(exchange, context.executor, context.clock, context.options.ping_interval);
  co_await writer.begin();
  StreamedMessage answer(writer, head);
  const Result<void> ended = co_await generation.run(listed.through(answer));
  co_await end_stream(answer, ended, head, generation);
  co_await writer.finish();
  co_return ended;
}

Task<void> answer(const GatewayContext& context, Exchange& exchange) {
  HttpRequest& http = exchange.request();
  Result<GenerationRequest> prepared = co_await prepare_generation(context, parse_answered, std::move(http.body));
  exchange.body_is_gone();
  if (!prepared) {
    co_await exchange.respond(refusal(prepared.error()));
    co_return std::unexpected(prepared.error());
  }
  GenerationRequest& request = *prepared;
  const MessageHead head{context.new_id("msg_"), context.options.model_name,
                         std::ssize(request.prompts.front().tokens)};
  Generation generation(context.executor, context.clock, context.codec, IncrementalDetokenizer(request.stop));
  const Result<void> submitted = submit(context, http, head.id, request, generation);
  if (!submitted) {
    co_await exchange.respond(refusal(submitted.error()));
    co_return submitted;
  }
  ListedRequest listed(context.requests, entry_of(http, head.id, "messages", request), generation);
  exchange.on_disconnect([&generation] { generation.cancel(); });
  if (exchange.disconnected()) generation.cancel();
  Result<void> ended;
  if (request.stream) {
    ended = co_await answer_streamed(context, exchange, generation, listed, head);
  } else {
    ended = co_await answer_whole(context, exchange, generation, listed, head);
  }
  exchange.on_disconnect(nullptr);
  listed.end(ended);
  co_return ended;
}

asio::awaitable<void> serve(const GatewayContext& context, Exchange& exchange) {
  const Time received_at = exchange.request().received_at;
  const Result<void> ended = co_await answer(context, exchange);
  const RequestStatus status = ended ? RequestStatus::kOk : request_status(ended.error());
  context.metrics.http_request("messages", status, seconds(context.clock.now() - received_at));
}

// Also of what is longer than the context: whoever counts wants to know by how much.
Result<HttpReply> count_of(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  const GenerationRequest request = TRY(parse_messages(parsed, model, MessagesUse::kCountTokens));
  TRY(check_prompt_bytes(body.size()));
  const std::vector<TokenId> tokens = TRY(codec.encode_chat(request.messages, request.add_generation_prompt));
  return json_reply({{"input_tokens", tokens.size()}});
}

asio::awaitable<void> count_tokens(const GatewayContext& context, Exchange& exchange) {
  const std::string body = std::move(exchange.request().body);
  const ServedModel model = context.served_model();
  Result<HttpReply> counted =
      co_await context.text_lane.run(body.size(), [&] { return count_of(body, context.codec, model); });
  exchange.body_is_gone();
  HttpReply reply = counted ? std::move(*counted) : refusal(counted.error());
  co_await exchange.respond(std::move(reply));
}

}  // namespace

void add_messages_routes(HttpRouter& router, const GatewayContext& context) {
  // Anthropic's clients write ?beta=true for what is asked for in the header Anthropic-Beta.
  const HttpRouter::Rules rules{.query = {"beta"}};
  router.add("POST", "/v1/messages", [&context](Exchange& exchange) { return serve(context, exchange); }, rules);
  router.add(
      "POST", "/v1/messages/count_tokens", [&context](Exchange& exchange) { return count_tokens(context, exchange); },
      rules);
}

}  // namespace runahead
