#include "services/gateway/text_routes.h"

#include <boost/asio/co_spawn.hpp>

#include "services/gateway/answer_text.h"
#include "services/gateway/api_error.h"
#include "services/gateway/json_reader.h"

namespace runahead {
namespace {

using nlohmann::json;

json model_card(const GatewayContext& context) {
  const ClusterView cluster = context.inference.cluster();
  json card = {{"id", context.model_name}, {"object", "model"},          {"created", 0},
               {"owned_by", "runahead"},   {"root", context.model_name}, {"parent", nullptr}};
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
    co_return fail(ErrorCode::kNotFound, "no such model; this server has '" + context.model_name + "'", "model");
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
  const json parsed = TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  take_model(reader, model);
  const auto prompt = reader.string("prompt", limits::kJsonBodyBytesMax);
  const auto content = reader.string("content", limits::kJsonBodyBytesMax);
  const nlohmann::ordered_json messages = take_messages(reader);
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
  } else {
    request.chat_tokens = TRY(codec.encode_chat(messages, generation_prompt));
  }
  request.add_special = add_special.value_or(true);
  request.parse_special = parse_special.value_or(false);
  return request;
}

Result<HttpReply> tokenize_now(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  const TokenizeRequest request = TRY(parse_tokenize(body, codec, model));
  const std::vector<TokenId> tokens =
      request.chat_tokens ? *request.chat_tokens
                          : TRY(codec.encode(request.text, request.add_special, request.parse_special));
  json answer = {{"tokens", tokens}, {"count", tokens.size()}};
  answer["max_model_len"] = model.context_len > 0 ? json(model.context_len) : json(nullptr);
  return json_reply(answer);
}

Task<HttpReply> tokenize_on_lane(const std::string& body, const TextCodec& codec, const ServedModel& model) {
  co_return tokenize_now(body, codec, model);
}

Task<HttpReply> tokenize(const GatewayContext& context, std::string body) {
  const ServedModel model = context.served_model();
  if (body.size() <= limits::kInlineTextBytesMax) co_return tokenize_now(body, context.codec, model);
  co_return co_await asio::co_spawn(context.text_lane, tokenize_on_lane(body, context.codec, model),
                                    asio::use_awaitable);
}

Task<HttpReply> detokenize(const GatewayContext& context, std::string body) {
  const json parsed = CO_TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  take_model(reader, context.served_model());
  const auto tokens = reader.integers("tokens", limits::kJsonBodyBytesMax, 0, context.codec.vocab_size() - 1);
  if (!tokens) reader.error("tokens", "is missing; send a list of token ids");
  reader.finish();
  if (error) co_return std::unexpected(std::move(*error));
  const std::vector<TokenId> ids(tokens->begin(), tokens->end());
  const std::string text = valid_utf8(context.codec.decode(ids));
  co_return json_reply({{"prompt", text}, {"content", text}});  // vLLM's name and llama.cpp's
}

Task<HttpReply> apply_template(const GatewayContext& context, std::string body) {
  const json parsed = CO_TRY(parse_json_object(body));
  std::optional<Error> error;
  JsonReader reader(parsed, "", error);
  take_model(reader, context.served_model());
  const nlohmann::ordered_json messages = take_messages(reader);
  if (messages.empty()) reader.error("messages", "is missing or empty");
  const bool generation_prompt = reader.boolean("add_generation_prompt").value_or(true);
  reader.finish();
  if (error) co_return std::unexpected(std::move(*error));
  const std::string prompt = CO_TRY(context.codec.render_chat(messages, generation_prompt));
  co_return json_reply({{"prompt", prompt}});
}

}  // namespace

void add_text_routes(HttpRouter& router, const GatewayContext& context) {
  router.answer("GET", "/v1/models", [&context](const HttpRequest&) { return list_models(context); });
  router.answer("GET", "/v1/models/{id}",
                [&context](const HttpRequest& request) { return get_model(context, request.path_params.at("id")); });
  router.answer("POST", "/tokenize",
                [&context](const HttpRequest& request) { return tokenize(context, request.body); });
  router.answer("POST", "/detokenize",
                [&context](const HttpRequest& request) { return detokenize(context, request.body); });
  router.answer("POST", "/apply-template",
                [&context](const HttpRequest& request) { return apply_template(context, request.body); });
}

}  // namespace runahead
