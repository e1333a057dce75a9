#include "services/gateway/generation_routes.h"

#include <chrono>
#include <utility>

#include "base/utf8.h"
#include "base/wall_clock.h"
#include "services/gateway/echoed_prompt.h"
#include "services/gateway/request/structured_output.h"
#include "services/gateway/text_routes.h"
#include "services/gateway/tool_sink.h"
#include "services/http/api_error.h"
#include "services/http/sse_writer.h"

namespace runahead {
namespace {

using nlohmann::json;

const char* endpoint_name(Endpoint endpoint) { return endpoint == Endpoint::kChat ? "chat" : "completions"; }

int64_t prompt_tokens(const GenerationRequest& request) {
  int64_t tokens = 0;
  for (const TokenizedPrompt& prompt : request.prompts) tokens += static_cast<int64_t>(prompt.tokens.size());
  return tokens;
}

}  // namespace

RequestEntry entry_of(const HttpRequest& http, const std::string& id, const char* endpoint,
                      const GenerationRequest& request) {
  RequestEntry entry{.id = id, .owner = http.owner, .endpoint = endpoint};
  entry.trace = http.trace;
  entry.stream = request.stream;
  entry.choices = request.num_choices();
  entry.created_unix_s = unix_time_s();
  entry.received_at = http.received_at;
  entry.received_unix_ns = http.received_unix_ns;
  entry.prompt_tokens = prompt_tokens(request);
  return entry;
}

std::string echoed(const GenerationRequest& request, int32_t choice) {
  if (!request.echo) return {};
  return request.prompt_of(choice).text;
}

namespace {

// About what a text with its tokens takes as JSON.
size_t answer_bytes(const GenerationRequest& request, const std::string& text, std::span<const ShownToken> tokens) {
  size_t bytes = text.size();
  if (request.logprobs || request.return_token_ids)
    for (const ShownToken& token : tokens) bytes += json_bytes({&token.sampled, 1});
  return bytes;
}

// Collects whole choices.
class WholeAnswer final : public ChoiceSink {
 public:
  explicit WholeAnswer(const GenerationRequest& request)
      : choices(static_cast<size_t>(request.num_choices())), request_(request) {
    for (size_t i = 0; i < choices.size(); ++i) choices[i].text = echoed(request, static_cast<int32_t>(i));
  }
  Task<void> prompt(int32_t choice, std::vector<SampledToken> scored) override {
    AnswerChoice& target = choices[static_cast<size_t>(choice)];
    target.text_begin = character_count(target.text);
    target.prompt = shown_prompt(request_.prompt_of(choice), std::move(scored));
    co_return Result<void>{};
  }
  Task<void> piece(int32_t choice, TextPiece piece) override {
    AnswerChoice& target = choices[static_cast<size_t>(choice)];
    target.text += piece.text;
    if (piece.call) add(target.calls, *piece.call);
    std::ranges::move(piece.tokens, std::back_inserter(target.tokens));
    co_return Result<void>{};
  }
  Task<void> finished(int32_t choice, std::string finish_reason) override {
    choices[static_cast<size_t>(choice)].finish_reason = std::move(finish_reason);
    co_return Result<void>{};
  }
  std::vector<AnswerChoice> choices;

 private:
  const GenerationRequest& request_;
};

// Writes chunks as they come.
class StreamedAnswer final : public ChoiceSink {
 public:
  StreamedAnswer(SseWriter& writer, const AnswerHead& head, const GenerationRequest& request,
                 const Generation& generation, const GatewayContext& context, Time received_at)
      : writer_(writer),
        head_(head),
        request_(request),
        generation_(generation),
        context_(context),
        received_at_(received_at),
        choices_(static_cast<size_t>(request.num_choices())) {}

  Task<void> prompt(int32_t choice, std::vector<SampledToken> scored) override {
    ChoiceState& state = choices_[static_cast<size_t>(choice)];
    state.begun = true;
    const std::string text = echoed(request_, choice);
    state.text_begin = character_count(text);
    const std::vector<ShownToken> tokens = shown_prompt(request_.prompt_of(choice), std::move(scored));
    std::optional<json> usage = chunk_usage();
    std::string chunk = co_await context_.text_lane.render(answer_bytes(request_, text, tokens), [&] {
      return with_usage(prompt_chunk(head_, choice, text, tokens, context_.codec), std::move(usage));
    });
    auto sent = co_await writer_.event(std::move(chunk));
    CO_TRY(sent);
    co_return co_await writer_.flush();
  }
  Task<void> piece(int32_t choice, TextPiece piece) override {
    ChoiceState& state = choices_[static_cast<size_t>(choice)];
    const bool first = !std::exchange(state.begun, true);
    if (first && request_.echo) {
      const std::string prompt = echoed(request_, choice);
      state.text_begin = character_count(prompt);
      piece.text = prompt + piece.text;
    }
    std::optional<json> usage = chunk_usage();  // now: the lane runs beside the other choices
    std::string chunk = co_await context_.text_lane.render(answer_bytes(request_, piece.text, piece.tokens), [&] {
      return with_usage(text_chunk(head_, choice, piece, first, request_.logprobs, state.text_begin, context_.codec),
                        std::move(usage));
    });
    auto sent = co_await writer_.event(std::move(chunk));
    CO_TRY(sent);
    if (first) co_return co_await writer_.flush();
    co_return Result<void>{};
  }
  Task<void> progress(int32_t choice, PrefillProgress progress) override {
    if (!request_.return_progress) co_return Result<void>{};
    const TokenizedPrompt& prompt = request_.prompt_of(choice);
    const double elapsed = seconds(context_.clock.now() - received_at_);
    co_return co_await send(progress_chunk(head_, static_cast<int32_t>(prompt.tokens.size()), progress, elapsed));
  }
  Task<void> finished(int32_t choice, std::string finish_reason) override {
    const bool first = !choices_[static_cast<size_t>(choice)].begun;
    co_return co_await send(finish_chunk(head_, choice, finish_reason, first));
  }

 private:
  struct ChoiceState {
    bool begun = false;
    int64_t text_begin = 0;
  };

  // OpenAI: who asks for the usage finds the field in every chunk, null before the last one.
  std::optional<json> chunk_usage() const {
    if (request_.continuous_usage) return token_usage_json(prompt_tokens(request_), generation_.results());
    return request_.include_usage ? std::optional<json>(nullptr) : std::nullopt;
  }
  static std::string with_usage(json chunk, std::optional<json> usage) {
    if (usage) chunk["usage"] = std::move(*usage);
    return to_text(chunk);
  }
  Task<void> send(json chunk) { return writer_.event(with_usage(std::move(chunk), chunk_usage())); }

  SseWriter& writer_;
  const AnswerHead& head_;
  const GenerationRequest& request_;
  const Generation& generation_;
  const GatewayContext& context_;
  Time received_at_;
  std::vector<ChoiceState> choices_;
};

Task<void> answer_whole(const GatewayContext& context, Exchange& exchange, Generation& generation,
                        ListedRequest& listed, const GenerationRequest& request, const AnswerHead& head) {
  WholeAnswer answer(request);
  ToolSink sink(answer, request, kCallIdPrefix, head.id);
  const Result<void> ended = co_await generation.run(listed.through(sink));
  if (!ended) {
    co_await exchange.respond(error_reply(ended.error()));
    co_return ended;
  }
  const auto& results = generation.results();
  json usage = usage_json(prompt_tokens(request), results, request.choices_per_prompt);
  size_t bytes = 0;
  for (const AnswerChoice& choice : answer.choices) {
    for (const ToolCall& call : choice.calls) bytes += call.arguments.size();
    bytes += answer_bytes(request, choice.text, choice.tokens) + answer_bytes(request, "", choice.prompt);
  }
  HttpReply reply = co_await context.text_lane.render(bytes, [&] {
    return json_reply(answer_body(head, answer.choices, request.logprobs, context.codec, std::move(usage)));
  });
  if (results.front().report) reply.headers.emplace_back("Server-Timing", server_timing(*results.front().report));
  co_await exchange.respond(std::move(reply));
  co_return Result<void>{};
}

asio::awaitable<void> end_stream(SseWriter& writer, const Result<void>& ended, const AnswerHead& head,
                                 const GenerationRequest& request, const Generation& generation) {
  if (!ended) {
    // The status line is long gone: the error travels as an event, and the stream ends without [DONE].
    co_await writer.named_event("error", to_text(error_json(ended.error())));
    co_return;
  }
  if (request.include_usage) {
    const json usage = usage_json(prompt_tokens(request), generation.results(), request.choices_per_prompt);
    co_await writer.event(to_text(usage_chunk(head, usage)));
  }
  co_await writer.event("[DONE]");
}

Task<void> answer_streamed(const GatewayContext& context, Exchange& exchange, Generation& generation,
                           ListedRequest& listed, const GenerationRequest& request, const AnswerHead& head) {
  SseWriter writer(exchange, context.executor, context.clock, context.options.ping_interval);
  co_await writer.begin();
  StreamedAnswer answer(writer, head, request, generation, context, exchange.request().received_at);
  ToolSink sink(answer, request, kCallIdPrefix, head.id);
  const Result<void> ended = co_await generation.run(listed.through(sink));
  co_await end_stream(writer, ended, head, request, generation);
  co_await writer.finish();
  co_return ended;  // the answer was whole, whether or not the client waited for the last bytes of the stream
}

Task<void> answer(const GatewayContext& context, Exchange& exchange, Generation& generation,
                  const GenerationRequest& request, const AnswerHead& head) {
  ListedRequest listed(context.requests, entry_of(exchange.request(), head.id, endpoint_name(head.endpoint), request),
                       generation);
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

Task<void> generate(const GatewayContext& context, Endpoint endpoint, Exchange& exchange) {
  HttpRequest& http = exchange.request();
  Result<GenerationRequest> prepared =
      co_await prepare_generation(context, openai_body(endpoint), std::move(http.body));
  exchange.body_is_gone();
  if (!prepared) {
    co_await exchange.respond(error_reply(prepared.error()));
    co_return std::unexpected(prepared.error());
  }
  GenerationRequest& request = *prepared;
  AnswerHead head{endpoint, context.new_id(endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-"),
                  context.options.model_name, unix_time_s(), request.return_token_ids};
  Generation generation(context.executor, context.clock, context.codec, empty_answer(request, context.codec));
  const Result<void> submitted = submit(context, http, head.id, request, generation);
  if (!submitted) {
    co_await exchange.respond(error_reply(submitted.error()));
    co_return submitted;
  }
  co_return co_await answer(context, exchange, generation, request, head);
}

asio::awaitable<void> serve(const GatewayContext& context, Endpoint endpoint, Exchange& exchange) {
  const Time received_at = exchange.request().received_at;
  const Result<void> ended = co_await generate(context, endpoint, exchange);
  const RequestStatus status = ended ? RequestStatus::kOk : request_status(ended.error());
  context.metrics.http_request(endpoint_name(endpoint), status, seconds(context.clock.now() - received_at));
}

void prepare_echo(TokenizedPrompt& prompt, bool scored, const TextCodec& codec) {
  std::string bytes = prompt.text.empty() ? codec.decode(prompt.tokens) : std::move(prompt.text);
  if (scored) prompt.offsets = token_offsets(bytes, prompt.tokens, codec);
  prompt.text = valid_utf8(bytes);
}

Result<GenerationRequest> prepare_now(const ParseGeneration& parse, const std::string& body, const ServedModel& model,
                                      const TextCodec& codec, const Clock& clock) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  GenerationRequest request = TRY(parse(parsed, model));
  std::string& grammar = request.inference.sampling.grammar;
  std::string structure;
  if (!request.structured_at.empty()) structure = TRY(structured_grammar(body, request.structured_at));
  grammar = TRY(prepare_tools(request.tools, request.messages, body, codec, structure));
  if (!grammar.empty() && codec.end_tokens().empty())
    return fail(ErrorCode::kUnsupported,
                "this model has no token that ends an answer, so that none can be of a structure",
                request.structured_at.empty() ? "tool_choice" : "response_format");
  if (!request.messages.empty()) TRY(check_prompt_bytes(body.size()));
  for (const TokenizedPrompt& prompt : request.prompts) TRY(check_prompt_bytes(prompt.text.size()));
  const Time begin = clock.now();
  TRY(tokenize_prompts(request, codec, model.context_len));
  if (request.echo)
    for (TokenizedPrompt& prompt : request.prompts) prepare_echo(prompt, request.scores_prompt(), codec);
  request.inference.tokenize_time = clock.now() - begin;
  return request;
}

}  // namespace

ServedModel GatewayContext::served_model() const {
  const ClusterView cluster = inference.cluster();
  return {options.model_name,  options.model_aliases, codec.vocab_size(),
          cluster.context_len, cluster.kv_tokens,     options.generation_defaults};
}

bool GatewayContext::is_over() const {
  const ClusterView cluster = inference.cluster();
  return cluster.draining && cluster.running == 0 && cluster.waiting == 0;
}

std::string GatewayContext::new_id(std::string prefix) const {
  char digits[33];
  std::snprintf(digits, sizeof digits, "%016llx%08x", static_cast<unsigned long long>(rng.next()),
                static_cast<unsigned>(rng.next()));
  return prefix + digits;
}

std::string salt_of(const HttpRequest& http, const std::string& asked) {
  return http.owner.empty() ? asked : http.owner + " " + asked;
}

ParseGeneration openai_body(std::optional<Endpoint> endpoint) {
  return [endpoint](const json& body, const ServedModel& model) {
    const auto messages = body.find("messages");
    const bool has_messages = messages != body.end() && !messages->is_null();
    const Endpoint by_itself = has_messages ? Endpoint::kChat : Endpoint::kCompletions;
    return parse_generation(endpoint.value_or(by_itself), body, model);
  };
}

Result<void> submit(const GatewayContext& context, const HttpRequest& http, const std::string& id,
                    GenerationRequest& request, Generation& generation) {
  request.inference.external_id = id;
  request.inference.trace_id = http.trace.trace_id;
  request.inference.cache_salt = salt_of(http, request.inference.cache_salt);
  request.inference.received_at = http.received_at;
  request.inference.deadline = context.options.request_timeout;
  const ServedModel model = context.served_model();
  std::vector<InferenceRequest> requests;
  for (int32_t choice = 0; choice < request.num_choices(); ++choice)
    requests.push_back(inference_request(request, choice, model, context.codec));
  generation.hold(TRY(context.memory.take(requests, request.stream)));
  return generation.submit(context.inference, std::move(requests));
}

Task<GenerationRequest> prepare_generation(const GatewayContext& context, ParseGeneration parse, std::string body) {
  const ServedModel model = context.served_model();
  Result<GenerationRequest> prepared = co_await context.text_lane.run(
      body.size(), [&] { return prepare_now(parse, body, model, context.codec, context.clock); });
  if (prepared && !prepared->seed) prepared->seed = context.rng.next();
  co_return prepared;
}

void add_generation_routes(HttpRouter& router, const GatewayContext& context) {
  router.add("POST", "/v1/completions",
             [&context](Exchange& exchange) { return serve(context, Endpoint::kCompletions, exchange); });
  router.add("POST", "/v1/chat/completions",
             [&context](Exchange& exchange) { return serve(context, Endpoint::kChat, exchange); });
}

}  // namespace runahead
