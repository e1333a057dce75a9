#include "services/gateway/messages_routes.h"

#include <array>
#include <utility>

#include "services/gateway/messages_body.h"
#include "services/gateway/request/messages_request.h"
#include "services/gateway/text_routes.h"
#include "services/gateway/tool_sink.h"
#include "services/http/api_error.h"
#include "services/http/sse_writer.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kUseIdPrefix = "toolu_";  // Anthropic's

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
    bytes += piece.text.size() + (piece.call ? piece.call->arguments.size() : 0);
    if (piece.call && !piece.call->id.empty()) {
      blocks.push_back({"", ToolCall{piece.call->id, piece.call->name, ""}});
    } else if (piece.call) {
      blocks.back().call->arguments += piece.call->arguments;
    } else if (!piece.text.empty()) {
      if (blocks.empty() || blocks.back().call) blocks.emplace_back();
      blocks.back().text += piece.text;
    }
    co_return Result<void>{};
  }
  Task<void> finished(int32_t, std::string reason) override {
    if (blocks.empty()) blocks.emplace_back();
    finish_reason = std::move(reason);
    co_return Result<void>{};
  }
  std::vector<MessageBlock> blocks;
  size_t bytes = 0;
  std::string finish_reason;
};

// The first piece opens the message, and, where no tools are, its one block, also where it is without text.
class StreamedMessage final : public ChoiceSink {
 public:
  StreamedMessage(SseWriter& writer, const MessageHead& head, bool has_tools)
      : writer_(writer), head_(head), has_tools_(has_tools) {}

  Task<void> prompt(int32_t, std::vector<SampledToken>) override { co_return Result<void>{}; }
  Task<void> piece(int32_t, TextPiece piece) override {
    const bool first = !begun_;
    auto begun = co_await begin();
    CO_TRY(begun);
    auto written = co_await write(std::move(piece));
    CO_TRY(written);
    if (first) co_return co_await writer_.flush();
    co_return Result<void>{};
  }
  Task<void> finished(int32_t, std::string reason) override {
    finish_reason = std::move(reason);
    co_return Result<void>{};
  }
  Task<void> begin() {
    if (std::exchange(begun_, true)) co_return Result<void>{};
    auto sent = co_await send(message_start(head_));
    CO_TRY(sent);
    if (has_tools_) co_return Result<void>{};
    MessageBlock text;
    co_return co_await open(std::move(text));
  }
  Task<void> close() {
    if (!open_) co_return Result<void>{};
    open_.reset();
    co_return co_await send(content_block_stop(index_++));
  }
  Task<void> send(const json& event) { return writer_.named_event(event["type"].get<std::string>(), to_text(event)); }

  std::string finish_reason;

 private:
  enum class Block { kText, kCall };

  Task<void> write(TextPiece piece) {
    if (piece.call && !piece.call->id.empty()) {
      MessageBlock call{"", ToolCall{piece.call->id, piece.call->name, ""}};
      co_return co_await open(std::move(call));
    }
    if (piece.call) co_return co_await send(input_json_delta(index_, piece.call->arguments));
    if (piece.text.empty()) co_return Result<void>{};
    if (open_ != Block::kText) {
      MessageBlock text;
      auto opened = co_await open(std::move(text));
      CO_TRY(opened);
    }
    co_return co_await send(text_delta(index_, piece.text));
  }
  Task<void> open(MessageBlock block) {
    auto closed = co_await close();
    CO_TRY(closed);
    open_ = block.call ? Block::kCall : Block::kText;
    co_return co_await send(content_block_start(index_, block));
  }

  SseWriter& writer_;
  const MessageHead& head_;
  const bool has_tools_;
  bool begun_ = false;
  std::optional<Block> open_;
  int32_t index_ = 0;  // of the open block, or the next one
};

// As ToolSink says it ended: the generation knows no calls.
ChoiceResult with_reason(const Generation& generation, const std::string& finish_reason) {
  ChoiceResult result = generation.results().front();
  result.finish_reason = finish_reason;
  return result;
}

Task<void> answer_whole(const GatewayContext& context, Exchange& exchange, Generation& generation,
                        ListedRequest& listed, const GenerationRequest& request, const MessageHead& head) {
  WholeMessage answer;
  ToolSink sink(answer, request, kUseIdPrefix, head.id);
  const Result<void> ended = co_await generation.run(listed.through(sink));
  if (!ended) {
    co_await exchange.respond(refusal(ended.error()));
    co_return ended;
  }
  const ChoiceResult result = with_reason(generation, answer.finish_reason);
  HttpReply reply = co_await context.text_lane.render(
      answer.bytes, [&] { return json_reply(message_body(head, answer.blocks, result)); });
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
  auto closed = co_await answer.close();
  CO_TRY(closed);
  const ChoiceResult result = with_reason(generation, answer.finish_reason);
  const std::array<json, 2> events = {message_delta(head, result), message_stop()};
  for (const json& event : events) {
    auto sent = co_await answer.send(event);
    CO_TRY(sent);
  }
  co_return Result<void>{};
}

Task<void> answer_streamed(const GatewayContext& context, Exchange& exchange, Generation& generation,
                           ListedRequest& listed, const GenerationRequest& request, const MessageHead& head) {
  SseWriter writer(exchange, context.executor, context.clock, context.options.ping_interval);
  co_await writer.begin();
  StreamedMessage answer(writer, head, request.tools.reading.has_value());
  ToolSink sink(answer, request, kUseIdPrefix, head.id);
  const Result<void> ended = co_await generation.run(listed.through(sink));
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
  Generation generation(context.executor, context.clock, context.codec, empty_answer(request, context.codec));
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
    ended = co_await answer_streamed(context, exchange, generation, listed, request, head);
  } else {
    ended = co_await answer_whole(context, exchange, generation, listed, request, head);
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
  GenerationRequest request = TRY(parse_messages(parsed, model, MessagesUse::kCountTokens));
  TRY(check_prompt_bytes(body.size()));
  TRY(prepare_tools(request.tools, request.messages, body, codec));
  const std::vector<TokenId> tokens =
      TRY(codec.encode_chat(request.messages, request.add_generation_prompt, request.tools.shown));
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
