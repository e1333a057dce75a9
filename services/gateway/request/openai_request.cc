#include "services/gateway/request/openai_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>

#include "base/limits.h"
#include "services/gateway/request/structured_output.h"

namespace runahead {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using namespace std::string_view_literals;

constexpr int32_t kCompletionMaxTokensDefault = 16;  // OpenAI's

// OpenAI knows these, and they do not change the text that comes back.
constexpr std::array kIgnored = {"user"sv,
                                 "metadata"sv,
                                 "store"sv,
                                 "service_tier"sv,
                                 "safety_identifier"sv,
                                 "prompt_cache_key"sv,
                                 "prompt_cache_retention"sv};
constexpr std::array kUnsupportedChat = {"functions"sv,        "function_call"sv,      "audio"sv,    "prediction"sv,
                                         "reasoning_effort"sv, "web_search_options"sv, "verbosity"sv};
// Of messages. name: a hint that templates do not show; annotations: sources of an answer; provider_specific_fields:
// litellm's own notes.
constexpr std::array kIgnoredMessage = {"name"sv, "annotations"sv, "provider_specific_fields"sv};
constexpr std::array kUnsupportedMessage = {"function_call"sv, "audio"sv};
constexpr std::array kUnsupportedCompletions = {"suffix"sv};

void take_logit_bias(JsonReader& reader, const ServedModel& model, SamplingParams& sampling) {
  const json* bias = reader.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > static_cast<size_t>(limits::kLogitBiasMax))
    return reader.error("logit_bias", "has more than 1024 entries");
  for (const auto& [key, value] : bias->items()) {
    if (value.is_null()) continue;
    int32_t token = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), token);
    const bool is_token =
        parsed.ec == std::errc() && parsed.ptr == key.data() + key.size() && token >= 0 && token < model.vocab_size;
    if (!is_token)
      return reader.error("logit_bias", "has a key that is no token id of this model: '" + key.substr(0, 32) + "'");
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100))
      return reader.error("logit_bias", "has a value that is no number from -100 to 100");
    sampling.logit_bias.emplace_back(token, value.get<float>());
  }
}

void take_sampling(JsonReader& reader, const ServedModel& model, GenerationRequest& request) {
  SamplingParams& sampling = request.inference.sampling;
  GenerationDefaults chosen = take_sampling_choice(reader);
  const bool untold = !chosen.choose_sampling() && !model.defaults.choose_sampling();
  chosen.fall_back_to(model.defaults);
  if (untold) chosen.fall_back_to(untold_sampling());
  sampling.temperature = chosen.temperature.value_or(1.0f);
  sampling.top_k = std::min(chosen.top_k.value_or(0), model.vocab_size);
  sampling.top_p = chosen.top_p.value_or(1.0f);
  sampling.min_p = chosen.min_p.value_or(0.0f);
  sampling.repetition_penalty = chosen.repetition_penalty.value_or(1.0f);
  sampling.presence_penalty = static_cast<float>(reader.number("presence_penalty", -2, 2).value_or(0));
  sampling.frequency_penalty = static_cast<float>(reader.number("frequency_penalty", -2, 2).value_or(0));
  take_logit_bias(reader, model, sampling);
  const auto seed = reader.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  if (seed) request.seed = static_cast<uint64_t>(*seed);
}

void take_stop(JsonReader& reader, const ServedModel& model, GenerationRequest& request) {
  if (const json* stop = reader.take("stop")) {
    const json list = stop->is_string() ? json::array({*stop}) : *stop;
    if (!list.is_array() || list.size() > static_cast<size_t>(limits::kStopStringsMax))
      return reader.error("stop", "must be a string or a list of at most 4 strings");
    for (const json& entry : list) {
      const bool fits = entry.is_string() && !entry.get_ref<const std::string&>().empty() &&
                        entry.get_ref<const std::string&>().size() <= limits::kStopStringBytesMax;
      if (!fits) return reader.error("stop", "must hold strings of 1 to 1024 bytes");
      request.stop.push_back(entry.get<std::string>());
    }
  }
  if (const auto ids = reader.integers("stop_token_ids", limits::kStopTokensMax, 0, model.vocab_size - 1))
    request.inference.stop_tokens.assign(ids->begin(), ids->end());
  request.ignore_eos = reader.boolean("ignore_eos").value_or(false);
}

void take_stream(JsonReader& reader, GenerationRequest& request, std::optional<Error>& error) {
  request.stream = reader.boolean("stream").value_or(false);
  request.return_progress = reader.boolean("return_progress").value_or(false);
  request.return_token_ids = reader.boolean("return_token_ids").value_or(false);
  const json* options = reader.object("stream_options");
  if (options == nullptr) return;
  if (!request.stream) return reader.error("stream_options", "is allowed only with \"stream\": true");
  JsonReader inner(*options, "stream_options", error);
  request.include_usage = inner.boolean("include_usage").value_or(false);
  request.continuous_usage = inner.boolean("continuous_usage_stats").value_or(false);
  inner.boolean("include_obfuscation");  // padding against traffic analysis: not built, and changes no text
  inner.finish();
}

void take_runahead(JsonReader& reader, GenerationRequest& request, std::optional<Error>& error) {
  const json* object = reader.object("runahead");
  if (object == nullptr) return;
  JsonReader inner(*object, "runahead", error);
  const auto strategy = inner.string("strategy", kNameBytesMax);
  if (strategy) {
    if (auto parsed = parse_strategy(*strategy); parsed) {
      request.inference.strategy = *parsed;
    } else {
      inner.error("strategy", "is refused: " + parsed.error().message, parsed.error().code);
    }
  }
  constexpr int32_t kPositionMax = std::numeric_limits<int32_t>::max();
  if (const auto cuts = inner.integers("cuts", limits::kWorkersMax - 1, 1, kPositionMax)) {
    request.inference.cuts.assign(cuts->begin(), cuts->end());
    if (strategy && request.inference.strategy != Strategy::kByHand)
      inner.error("cuts", "goes with no other strategy; leave out 'strategy'");
    request.inference.strategy = Strategy::kByHand;
  }
  request.inference.workers_max = static_cast<int32_t>(inner.integer("workers", 1, limits::kWorkersMax).value_or(0));
  inner.finish();
}

std::optional<int32_t> take_tokens(JsonReader& reader, std::string_view field, int32_t min) {
  const auto tokens = reader.integer(field, min, std::numeric_limits<int32_t>::max());
  return tokens ? std::optional(static_cast<int32_t>(*tokens)) : std::nullopt;
}

void take_common(JsonReader& reader, const ServedModel& model, GenerationRequest& request,
                 std::optional<Error>& error) {
  take_model(reader, model);
  take_sampling(reader, model, request);
  take_stop(reader, model, request);
  take_stream(reader, request, error);
  take_runahead(reader, request, error);
  request.inference.cache_salt = reader.string("cache_salt", limits::kCacheSaltBytesMax).value_or("");
  request.choices_per_prompt = static_cast<int32_t>(reader.integer("n", 1, limits::kChoicesMax).value_or(1));
  request.max_tokens = take_tokens(reader, "max_tokens", request.endpoint == Endpoint::kChat ? 1 : 0);
  request.min_tokens = take_tokens(reader, "min_tokens", 0).value_or(0);
  reader.ignore(kIgnored);
}

std::optional<TokenizedPrompt> prompt_of_ids(JsonReader& reader, const std::string& field, const json& ids,
                                             const ServedModel& model) {
  TokenizedPrompt prompt;
  prompt.tokens.reserve(ids.size());
  for (const json& id : ids) {
    const auto token = whole_number(id);
    if (!token || *token < 0 || *token >= model.vocab_size) {
      reader.error(field + "[" + std::to_string(prompt.tokens.size()) + "]",
                   "must be a token id from 0 to " + std::to_string(model.vocab_size - 1));
      return {};
    }
    prompt.tokens.push_back(static_cast<TokenId>(*token));
  }
  return prompt;
}

// A string, a list of ids, a list of strings, or a list of lists of ids.
void take_prompt(JsonReader& reader, const ServedModel& model, GenerationRequest& request) {
  const json* prompt = reader.take("prompt");
  if (prompt == nullptr) return reader.error("prompt", "is missing");
  if (prompt->is_string()) {
    request.prompts.push_back({.text = prompt->get<std::string>()});
    return;
  }
  if (!prompt->is_array() || prompt->empty())
    return reader.error("prompt", "must be a string, a list of token ids, or a list of those, and not empty");
  if (prompt->front().is_number()) {
    if (auto one = prompt_of_ids(reader, "prompt", *prompt, model)) request.prompts.push_back(std::move(*one));
    return;
  }
  const size_t prompts_max = static_cast<size_t>(limits::kPromptChoicesMax / std::max(request.choices_per_prompt, 1));
  if (prompt->size() > prompts_max)
    return reader.error(
        "prompt", "has too many prompts; prompts times n may be at most " + std::to_string(limits::kPromptChoicesMax));
  for (const json& entry : *prompt) {
    const std::string field = "prompt[" + std::to_string(request.prompts.size()) + "]";
    if (entry.is_string()) {
      request.prompts.push_back({.text = entry.get<std::string>()});
    } else if (entry.is_array() && !entry.empty()) {
      auto one = prompt_of_ids(reader, field, entry, model);
      if (!one) return;
      request.prompts.push_back(std::move(*one));
    } else {
      return reader.error(field, "must be a string or a list of token ids that is not empty");
    }
  }
}

void take_completions_fields(JsonReader& reader, const ServedModel& model, GenerationRequest& request) {
  take_prompt(reader, model, request);
  request.echo = reader.boolean("echo").value_or(false);
  request.parse_special = reader.boolean("parse_special").value_or(false);
  if (request.max_tokens == 0 && !request.echo)
    reader.error("max_tokens", "0 leaves nothing to answer; ask for tokens, or for the prompt with \"echo\": true");
  const auto best_of = reader.integer("best_of", 1, limits::kChoicesMax);
  if (best_of && *best_of != request.choices_per_prompt)
    reader.error("best_of", "other than n is not supported; leave it out", ErrorCode::kUnsupported);
  if (const auto top = reader.integer("logprobs", 0, limits::kTopLogprobsMax)) {
    request.logprobs = true;
    request.inference.sampling.top_logprobs = static_cast<int32_t>(*top);
  }
  reader.unsupported(kUnsupportedCompletions);
}

void take_chat_fields(JsonReader& reader, GenerationRequest& request, std::optional<Error>& error) {
  request.prompts.resize(1);
  request.messages = take_messages(reader);
  if (request.messages.empty()) reader.error("messages", "is missing or empty");
  request.add_generation_prompt = reader.boolean("add_generation_prompt").value_or(true);
  if (const auto tokens = take_tokens(reader, "max_completion_tokens", 1)) request.max_tokens = tokens;
  request.logprobs = reader.boolean("logprobs").value_or(false);
  const auto top = reader.integer("top_logprobs", 0, limits::kTopLogprobsMax);
  if (top && !request.logprobs) reader.error("top_logprobs", "needs \"logprobs\": true");
  if (request.logprobs) request.inference.sampling.top_logprobs = static_cast<int32_t>(top.value_or(0));
  if (take_response_format(reader, error)) request.structured_at = "/response_format";
  request.tools = take_tools(reader, error);
  const bool structured = request.tools.structured = !request.structured_at.empty();
  if ((structured || request.tools.holds_to_grammar()) && (request.ignore_eos || request.min_tokens > 0))
    reader.error(request.ignore_eos ? "ignore_eos" : "min_tokens",
                 structured
                     ? "goes with no response_format of JSON, which ends where it is whole; leave one of them out"
                     : "goes with no tools that must be called, nor strict ones: their calls end the answer");
  if (const json* modalities = reader.take("modalities"); modalities != nullptr && *modalities != json::array({"text"}))
    reader.error("modalities", "other than [\"text\"] are not supported", ErrorCode::kUnsupported);
  reader.unsupported(kUnsupportedChat);
}

// One part of a content: text, or a refusal that an assistant has written instead of it.
std::string part_text(const json& part, const std::string& path, std::optional<Error>& error) {
  if (!part.is_object()) {
    if (!error)
      error =
          Error{ErrorCode::kInvalidArgument, "'" + path + "' must be {\"type\": \"text\", \"text\": \"...\"}", path};
    return {};
  }
  JsonReader reader(part, path, error);
  const std::string type = reader.string("type", kNameBytesMax).value_or("");
  if (type != "text" && type != "refusal")
    reader.error("type", "must be text, the only kind of part that this model reads",
                 type.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kUnsupported);
  const std::string field = type == "refusal" ? type : "text";
  const auto text = reader.string(field, limits::kJsonBodyBytesMax);
  if (!text) reader.error(field, "is missing");
  constexpr std::array kNoText = {"annotations"sv, "cache_control"sv};  // sources of an answer; where a cache may cut
  reader.ignore(kNoText);
  reader.finish();
  return text.value_or("");
}

// The text of a message: a string, or parts joined.
std::optional<std::string> content_text(JsonReader& message, std::optional<Error>& error) {
  const json* content = message.take("content");
  if (content == nullptr) return {};
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (!content->is_array()) return message.error("content", "must be a string or a list of parts"), text;
  size_t index = 0;
  for (const json& part : *content)
    text += part_text(part, message.path_of("content") + "[" + std::to_string(index++) + "]", error);
  return text;
}

// The text of a message, or the refusal that an assistant has given instead.
std::optional<std::string> said_text(JsonReader& message, const std::string& role, std::optional<Error>& error) {
  std::optional<std::string> text = content_text(message, error);
  auto refusal = message.string("refusal", limits::kJsonBodyBytesMax);
  if (!refusal) return text;
  if (role != "assistant") message.error("refusal", "belongs to messages of the assistant");
  if (!text.value_or("").empty()) message.error("refusal", "stands beside a content; send one of the two");
  return refusal;
}

std::string take_role(JsonReader& message) {
  constexpr std::array kRoles = {"system"sv, "user"sv, "assistant"sv, "tool"sv};
  std::string role = message.string("role", kNameBytesMax).value_or("");
  if (role == "developer") role = "system";
  if (std::ranges::find(kRoles, role) == kRoles.end())
    message.error("role", "must be system, developer, user, assistant or tool",
                  role == "function" ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument);
  return role;
}

// "reasoning_content" stays where an assistant's message has it: templates show or drop it.
ordered_json take_message(const json& entry, const std::string& path, std::optional<Error>& error) {
  JsonReader message(entry, path, error);
  const std::string role = take_role(message);
  const std::optional<std::string> text = said_text(message, role, error);
  const auto reasoning = message.string("reasoning_content", limits::kJsonBodyBytesMax);
  const auto answered = message.string("tool_call_id", kNameBytesMax);
  ordered_json calls = take_tool_calls(message, error);
  if (role != "assistant" && reasoning) message.error("reasoning_content", "belongs to messages of the assistant");
  if (role != "assistant" && !calls.empty()) message.error("tool_calls", "belongs to messages of the assistant");
  if (role != "tool" && answered) message.error("tool_call_id", "belongs to messages of role tool");
  if (role == "tool" && !answered) message.error("tool_call_id", "is missing");
  if (!text && calls.empty()) message.error("content", "is missing");
  message.ignore(kIgnoredMessage);
  message.unsupported(kUnsupportedMessage);
  message.finish();
  ordered_json checked = {{"role", role}, {"content", text.value_or("")}};
  if (reasoning) checked["reasoning_content"] = *reasoning;
  if (!calls.empty()) checked["tool_calls"] = std::move(calls);
  if (answered) checked["tool_call_id"] = *answered;
  return checked;
}

// Which tool a message of role tool answers for: some templates show its name. The ids of calls so far are `names`.
void name_tool(JsonReader& reader, const std::string& field, ordered_json& message,
               std::map<std::string, std::string>& names) {
  for (const ordered_json& call : message.value("tool_calls", ordered_json::array()))
    names[call.at("id").get<std::string>()] = call.at("function").at("name").get<std::string>();
  if (message["role"] != "tool") return;
  const auto called = names.find(message["tool_call_id"].get<std::string>());
  if (called == names.end())
    return reader.error(field + ".tool_call_id", "is the id of no call in a message before it");
  message["name"] = called->second;
}

}  // namespace

bool ServedModel::answers_to(std::string_view model) const {
  return model == name || std::ranges::find(aliases, model) != aliases.end();
}

void take_model(JsonReader& reader, const ServedModel& model) {
  const auto name = reader.string("model", kNameBytesMax);
  if (name && !model.answers_to(*name))
    reader.error("model", "names a model that is not served; this server has '" + model.name + "'",
                 ErrorCode::kNotFound);
}

json take_metadata(JsonReader& reader) {
  constexpr size_t kEntriesMax = 16, kNameMax = 64, kValueBytesMax = 512;  // OpenAI's
  const json* metadata = reader.object("metadata");
  if (metadata == nullptr) return nullptr;
  bool fits = metadata->size() <= kEntriesMax;
  for (const auto& [name, value] : metadata->items())
    fits = fits && name.size() <= kNameMax && value.is_string() &&
           value.get_ref<const std::string&>().size() <= kValueBytesMax;
  if (!fits) reader.error("metadata", "must be at most 16 strings of at most 512 bytes, their names of at most 64");
  return *metadata;
}

ordered_json take_messages(JsonReader& reader) {
  ordered_json messages = ordered_json::array();
  std::map<std::string, std::string> tool_names;  // of calls so far, by their ids
  const json* list = reader.array("messages", limits::kMessagesMax);
  if (list == nullptr) return messages;
  for (const json& entry : *list) {
    const std::string field = "messages[" + std::to_string(messages.size()) + "]";
    if (!entry.is_object())
      return reader.error(field, "must be an object with role and content"), ordered_json::array();
    std::optional<Error> error;
    ordered_json message = take_message(entry, reader.path_of(field), error);
    if (error) return reader.adopt(std::move(*error)), ordered_json::array();
    name_tool(reader, field, message, tool_names);
    messages.push_back(std::move(message));
  }
  return messages;
}

Result<GenerationRequest> parse_generation(Endpoint endpoint, const json& body, const ServedModel& model) {
  if (!body.is_object()) return fail(ErrorCode::kInvalidArgument, "the body must be a JSON object");
  GenerationRequest request;
  request.endpoint = endpoint;
  std::optional<Error> error;
  JsonReader reader(body, "", error);
  take_common(reader, model, request, error);
  if (endpoint == Endpoint::kChat) {
    take_chat_fields(reader, request, error);
  } else {
    take_completions_fields(reader, model, request);
  }
  if (request.max_tokens && *request.max_tokens < request.min_tokens)
    reader.error("min_tokens", "must be at most max_tokens");
  reader.finish();
  if (error) return std::unexpected(std::move(*error));
  return request;
}

namespace {

Result<void> check_prompt_logprobs(const GenerationRequest& request) {
  int64_t entries = 0;
  for (const TokenizedPrompt& prompt : request.prompts) entries += std::ssize(prompt.tokens);
  entries *= int64_t{request.choices_per_prompt} * (1 + request.inference.sampling.top_logprobs);
  if (entries <= limits::kPromptLogprobsMax) return {};
  return fail(ErrorCode::kTooLarge,
              "the log-probabilities of the prompts would be " + std::to_string(entries) + " numbers, at most " +
                  std::to_string(limits::kPromptLogprobsMax) +
                  " are given; send fewer prompts, or ask for fewer logprobs",
              "logprobs");
}

// In words by which clients of agents know that they must send less: OpenAI's and Anthropic's (litellm and langchain look for
// them, not for the code; tests/e2e/test_agent_clients.py).
std::string too_long(int64_t prompt_len, int64_t answer_len, int32_t context_len) {
  const std::string most = "this model's maximum context length is " + std::to_string(context_len) + " tokens";
  const std::string prompt = std::to_string(prompt_len) + " tokens";
  if (prompt_len >= context_len) return "the prompt is too long: it has " + prompt + ", and " + most + "; shorten it";
  return "prompt and answer are too long: " + most + ", the prompt has " + prompt + " and the answer may take " +
         std::to_string(answer_len) + "; shorten the prompt, or ask for a shorter answer";
}

}  // namespace

Result<void> tokenize_prompts(GenerationRequest& request, const TextCodec& codec, int32_t context_len) {
  for (TokenizedPrompt& prompt : request.prompts) {
    const bool chat = request.endpoint == Endpoint::kChat;
    if (chat) {
      prompt.tokens = TRY(codec.encode_chat(request.messages, request.add_generation_prompt, request.tools.shown));
    } else if (prompt.tokens.empty()) {
      prompt.tokens = TRY(codec.encode(prompt.text, true, request.parse_special));
    }
    const char* field = chat ? "messages" : "prompt";
    if (prompt.tokens.empty()) return fail(ErrorCode::kInvalidArgument, "the prompt is empty", field);
    const int64_t prompt_len = static_cast<int64_t>(prompt.tokens.size());
    int64_t answer_len = request.max_tokens.value_or(std::max(request.min_tokens, 1));
    if (request.scores_prompt()) answer_len = std::max<int64_t>(answer_len, 1);  // a chain ends with a token
    const int64_t wanted = prompt_len + answer_len;
    if (context_len > 0 && wanted > context_len)
      return fail(ErrorCode::kContextOverflow, too_long(prompt_len, answer_len, context_len), field);
  }
  return request.scores_prompt() ? check_prompt_logprobs(request) : Result<void>{};
}

int32_t default_max_tokens(Endpoint endpoint, int32_t prompt_len, const ServedModel& model) {
  const int64_t rest = std::max(model.context_len - prompt_len, 1);
  if (endpoint == Endpoint::kCompletions)
    return static_cast<int32_t>(std::min<int64_t>(rest, kCompletionMaxTokensDefault));
  if (const int32_t own = model.defaults.max_tokens.value_or(0); own > 0)
    return static_cast<int32_t>(std::min<int64_t>(rest, own));
  if (model.defaults.max_tokens || model.kv_tokens == 0) return static_cast<int32_t>(rest);
  // Pages are reserved for the whole answer before it begins: the rest of a long context would let few chats in.
  const int64_t share = std::max<int64_t>(model.kv_tokens / limits::kAnswerShareOfKv, limits::kAnswerTokensMin);
  const int64_t room = std::max<int64_t>(model.kv_tokens - prompt_len, 1);
  return static_cast<int32_t>(std::min({rest, share, room}));
}

InferenceRequest inference_request(const GenerationRequest& request, int32_t choice, const ServedModel& model,
                                   const TextCodec& codec) {
  const TokenizedPrompt& prompt = request.prompt_of(choice);
  InferenceRequest out = request.inference;
  out.prompt = prompt.tokens;
  const auto prompt_len = static_cast<int32_t>(prompt.tokens.size());
  out.max_new_tokens = request.max_tokens.value_or(
      std::max(default_max_tokens(request.endpoint, prompt_len, model), request.min_tokens));
  for (const TokenizedPrompt& all : request.prompts)
    out.batch_tokens += request.choices_per_prompt * std::ssize(all.tokens);
  if (request.scores_prompt()) out.prompt_logprobs = out.sampling.top_logprobs;
  out.sampling.seed = request.seed.value_or(0) + static_cast<uint64_t>(choice % request.choices_per_prompt);
  if (!request.ignore_eos) std::ranges::copy(codec.end_tokens(), std::back_inserter(out.stop_tokens));
  if (request.min_tokens > 0) {
    out.sampling.banned = out.stop_tokens;
    constexpr int64_t kPositionMax = std::numeric_limits<int32_t>::max();
    out.sampling.banned_before = static_cast<int32_t>(std::min(int64_t{prompt_len} + request.min_tokens, kPositionMax));
  }
  return out;
}

}  // namespace runahead
