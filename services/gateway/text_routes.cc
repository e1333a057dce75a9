#include "services/gateway/text_routes.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "services/gateway/request/json_reader.h"
#include "services/http/api_error.h"

namespace runahead {
namespace {

using nlohmann::json;

json model_card(const GatewayContext& context) {
  const ClusterView cluster = context.inference.cluster();
  json card = {{"id", context.options.model_name},   {"object", "model"}, {"created", 0}, {"owned_by", "runahead"},
               {"root", context.options.model_name}, {"parent", nullptr}};
  card["max_model_len"] = cluster.context_len > 0 ? json(cluster.context_len) : json(nullptr);
  card["runahead"] = {
      {"workers", cluster.workers.size()}, {"compute", cluster.compute}, {"fingerprint", cluster.fingerprint}};
  return card;
}

Task<HttpReply> list_models(const GatewayContext& context) {
  co_return json_reply({{"object", "list"}, {"data", json::array({model_card(context)})}});
}

Task<HttpReply> get_model(const GatewayContext& context, std::string id) {
  if (!context.served_model().answers_to(id))
    co_return fail(ErrorCode::kNotFound, "no such model; this server has '" + context.options.model_name + "'",
                   "model");
  co_return json_reply(model_card(context));
}

struct TokenizeRequest {
  std::string text;
  bool add_special = true;
  bool parse_special = false;
  std::optional<std::vector<TokenId>> chat_tokens;  // of `messages`: the template spells its special tokens out itself
};

// Exactly one of prompt (vLLM), content (llama.cpp) and messages says what to tokenize.
Result<TokenizeRequest> parse_tokenize(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  take_model(reader, model);
  const auto prompt = reader.string("prompt", limits::kJsonBodyBytesMax);
  const auto content = reader.string("content", limits::kJsonBodyBytesMax);
  nlohmann::ordered_json messages = take_messages(reader);
  ToolUse tools = take_tools(reader, error);
  TokenizeRequest request;
  const auto add_special = reader.boolean("add_special_tokens");
  const auto parse_special = reader.boolean("parse_special");
  const bool generation_prompt = reader.boolean("add_generation_prompt").value_or(true);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  if (prompt.has_value() + content.has_value() + !messages.empty() != 1)
    return fail(ErrorCode::kInvalidArgument, "send exactly one of 'prompt', 'content' and 'messages'", "prompt");
  if (messages.empty()) {
    request.text = prompt ? *prompt : *content;
    TRY(check_prompt_bytes(request.text.size()));
  } else {
    TRY(check_prompt_bytes(body.size()));
    TRY(prepare_tools(tools, messages, body, codec));
    request.chat_tokens = TRY(codec.encode_chat(messages, generation_prompt, tools.shown));
  }
  request.add_special = add_special.value_or(true);
  request.parse_special = parse_special.value_or(false);
  return request;
}

// A few bytes of ids can stand for many of text, and a template can repeat what it is given.
Result<void> check_text_size(size_t bytes) {
  if (bytes <= 2 * limits::kJsonBodyBytesMax) return {};
  return fail(ErrorCode::kTooLarge, "the text is larger than 32 MiB; send less at once");
}

// Without a json value for each: millions of ids would take 30 times their memory.
std::string list_text(const std::vector<TokenId>& tokens) {
  std::string text = "[";
  for (const TokenId token : tokens) {
    if (text.size() > 1) text += ',';
    text += std::to_string(token);
  }
  return text += ']';
}

Result<HttpReply> tokenize(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  const TokenizeRequest request = TRY(parse_tokenize(body, codec, model));
  const std::vector<TokenId> tokens = request.chat_tokens
                                          ? *request.chat_tokens
                                          : TRY(codec.encode(request.text, request.add_special, request.parse_special));
  const std::string context_len = model.context_len > 0 ? std::to_string(model.context_len) : "null";
  return HttpReply{.body = "{\"count\":" + std::to_string(tokens.size()) + ",\"max_model_len\":" + context_len +
                           ",\"tokens\":" + list_text(tokens) + "}"};
}

Result<HttpReply> detokenize(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  std::vector<TokenId> ids;
  {
    const ParsedJson parsed = TRY(parse_json_object(body));
    std::optional<Error> error;
    JsonReader reader(parsed, "", error);
    take_model(reader, model);
    const auto tokens = reader.integers("tokens", limits::kJsonBodyBytesMax, 0, codec.vocab_size() - 1);
    if (!tokens) reader.error("tokens", "is missing; send a list of token ids");
    reader.finish();
    if (error) return std::unexpected(std::move(*error));
    ids.assign(tokens->begin(), tokens->end());
  }
  constexpr size_t kIdsAtOnce = 4096;
  std::string bytes;
  for (size_t at = 0; at < ids.size(); at += kIdsAtOnce) {
    const size_t before = at == 0 ? 0 : 1;  // the id in front says whether a first space is the text's
    const auto some = std::span(ids).subspan(at - before, std::min(kIdsAtOnce, ids.size() - at) + before);
    bytes += codec.decode(some).substr(codec.decode(some.first(before)).size());
    TRY(check_text_size(bytes.size()));
  }
  bytes = valid_utf8(bytes);
  const std::string text = to_text(json(std::exchange(bytes, {})));
  HttpReply reply;
  reply.body.reserve(2 * text.size() + 32);
  for (const char* part : {"{\"content\":", text.c_str(), ",\"prompt\":", text.c_str(), "}"}) reply.body += part;
  return reply;  // llama.cpp's name and vLLM's
}

Result<HttpReply> apply_template(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  const ParsedJson parsed = TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  take_model(reader, model);
  nlohmann::ordered_json messages = take_messages(reader);
  ToolUse tools = take_tools(reader, error);
  if (messages.empty()) reader.error("messages", "is missing or empty");
  const bool generation_prompt = reader.boolean("add_generation_prompt").value_or(true);
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  TRY(prepare_tools(tools, messages, body, codec));
  const std::string prompt = TRY(codec.render_chat(messages, generation_prompt, tools.shown));
  TRY(check_text_size(prompt.size()));
  return json_reply({{"prompt", prompt}});
}

using TextRoute = Result<HttpReply> (*)(const std::string& body, const TextCodec& codec, const ServedModel& model);

Task<HttpReply> on_lane(const GatewayContext& context, TextRoute route, std::string body) {
  const ServedModel model = context.served_model();
  co_return co_await context.text_lane.run(body.size(), [&] { return route(body, context.codec, model); });
}

}  // namespace

Result<void> check_prompt_bytes(size_t bytes) {
  if (bytes <= limits::kJsonBodyBytesMax / 4) return {};
  return fail(ErrorCode::kTooLarge, "a text of over 4 MiB is not tokenized at once; send less, or token ids");
}

void add_text_routes(HttpRouter& router, const GatewayContext& context) {
  router.answer("GET", "/v1/models", [&context](const HttpRequest&) { return list_models(context); });
  router.answer("GET", "/v1/models/{id}",
                [&context](const HttpRequest& request) { return get_model(context, request.path_params.at("id")); });
  const auto add = [&](const char* path, TextRoute route) {
    router.answer("POST", path,
                  [&context, route](HttpRequest& request) { return on_lane(context, route, std::move(request.body)); });
  };
  add("/tokenize", tokenize);
  add("/detokenize", detokenize);
  add("/apply-template", apply_template);
}

}  // namespace runahead
