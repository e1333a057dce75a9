#include "services/gateway/openai_response.h"

#include <algorithm>
#include <cstdio>

#include "base/utf8.h"
#include "services/gateway/answer/incremental_detokenizer.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr float kLogprobMin = -9999.0f;  // OpenAI's value for "as good as impossible"; JSON has no infinity

json number(float logprob) { return std::max(logprob, kLogprobMin); }

json bytes_json(const std::string& bytes) {
  json list = json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

// bytes: what the token adds to the text, so those of a control token are none.
json token_json(TokenId token, float logprob, const TextCodec& codec) {
  return {{"token", valid_utf8(spelled(token, codec))},
          {"logprob", number(logprob)},
          {"bytes", bytes_json(codec.token_bytes(token))}};
}

// OpenAI's form for what is no text: "bytes:\xe2\x82".
std::string escaped(std::string_view bytes) {
  std::string text = "bytes:";
  for (const unsigned char c : bytes) {
    char byte[5];
    std::snprintf(byte, sizeof byte, "\\x%02x", c);
    text += byte;
  }
  return text;
}

std::string completion_token_name(TokenId token, const TextCodec& codec) {
  std::string bytes = spelled(token, codec);
  return valid_utf8(bytes) == bytes ? bytes : escaped(bytes);
}

// The most likely tokens by name, and the chosen one whether or not it is among them. Two tokens can share a text (a
// byte and a letter, an end token and its spelling): the later one is named by its bytes, or by its id.
json completion_alternatives(const SampledToken& chosen, const TextCodec& codec) {
  json named = json::object();
  const auto add = [&](TokenId token, float logprob) {
    for (const std::string& name :
         {completion_token_name(token, codec), escaped(spelled(token, codec)), "token_id:" + std::to_string(token)})
      if (named.emplace(name, number(logprob)).second) return;
  };
  for (const TokenLogprob& entry : chosen.top) add(entry.token, entry.logprob);
  if (std::ranges::find(chosen.top, chosen.token, &TokenLogprob::token) == chosen.top.end())
    add(chosen.token, chosen.logprob);
  return named;
}

const char* object_name(const AnswerHead& head, bool chunk) {
  if (head.endpoint == Endpoint::kCompletions) return "text_completion";
  return chunk ? "chat.completion.chunk" : "chat.completion";
}

json with_head(const AnswerHead& head, bool chunk, json choices) {
  return {{"id", head.id},
          {"object", object_name(head, chunk)},
          {"created", head.created_unix_s},
          {"model", head.model},
          {"choices", std::move(choices)}};
}

json logprobs_or_null(const AnswerHead& head, bool wanted, const ScoredText& text, const TextCodec& codec) {
  if (!wanted) return nullptr;
  return head.endpoint == Endpoint::kChat ? chat_logprobs(text.tokens, codec) : completion_logprobs(text, codec);
}

json token_ids_json(std::span<const ShownToken> tokens) {
  json ids = json::array();
  for (const ShownToken& token : tokens) ids.push_back(token.sampled.token);
  return ids;
}

json message_json(const AnswerChoice& choice) {
  json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  if (choice.calls.empty()) return message;
  if (choice.text.empty()) message["content"] = nullptr;
  json calls = json::array();
  for (const ToolCall& call : choice.calls)
    calls.push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  message["tool_calls"] = std::move(calls);
  return message;
}

json call_delta(const ToolDelta& delta) {
  json call = {{"index", delta.index}, {"function", {{"arguments", delta.arguments}}}};
  if (!delta.id.empty()) {
    call["id"] = delta.id;
    call["type"] = "function";
    call["function"]["name"] = delta.name;
  }
  return {{"tool_calls", json::array({std::move(call)})}};
}

json ranks_json(const std::vector<RankReport>& ranks) {
  json list = json::array();
  for (const RankReport& rank : ranks)
    list.push_back({{"rank", rank.rank},
                    {"worker", rank.worker},
                    {"begin", rank.chunk.begin},
                    {"end", rank.chunk.end},
                    {"compute_seconds", rank.compute_seconds},
                    {"kv_wait_seconds", rank.kv_wait_seconds},
                    {"kv_sent_bytes", rank.kv_sent_bytes},
                    {"kv_wire_seconds", rank.kv_wire_seconds},
                    {"device", rank.device}});
  return list;
}

json stages_json(const TtftStages& stages) {
  json seconds;
  for (const TtftStage stage : kTtftStages) seconds[name(stage)] = stages[stage];
  return seconds;
}

}  // namespace

json chat_logprobs(std::span<const ShownToken> tokens, const TextCodec& codec) {
  json content = json::array();
  for (const auto& [token, offset] : tokens) {
    json entry = token_json(token.token, token.logprob, codec);
    entry["top_logprobs"] = json::array();
    for (const TokenLogprob& top : token.top)
      entry["top_logprobs"].push_back(token_json(top.token, top.logprob, codec));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

json completion_logprobs(const ScoredText& text, const TextCodec& codec) {
  json texts = json::array(), logprobs = json::array(), tops = json::array(), offsets = json::array();
  const auto add = [&](const SampledToken& token, int64_t offset, bool scored) {
    texts.push_back(completion_token_name(token.token, codec));
    logprobs.push_back(scored ? number(token.logprob) : json(nullptr));
    tops.push_back(scored ? completion_alternatives(token, codec) : json(nullptr));
    offsets.push_back(offset);
  };
  for (const auto& [token, offset] : text.prompt) add(token, offset, !texts.empty());  // the first follows nothing
  for (const auto& [token, offset] : text.tokens) add(token, text.begin + offset, true);
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json answer_body(const AnswerHead& head, std::span<const AnswerChoice> choices, bool logprobs, const TextCodec& codec,
                 json usage) {
  json list = json::array();
  for (const AnswerChoice& choice : choices) {
    json entry = {{"index", list.size()}, {"finish_reason", choice.finish_reason}};
    entry["logprobs"] = logprobs_or_null(head, logprobs, {choice.prompt, choice.tokens, choice.text_begin}, codec);
    if (head.token_ids) entry["token_ids"] = token_ids_json(choice.tokens);
    if (head.endpoint == Endpoint::kChat) {
      entry["message"] = message_json(choice);
    } else {
      entry["text"] = choice.text;
    }
    list.push_back(std::move(entry));
  }
  json body = with_head(head, false, std::move(list));
  body["usage"] = std::move(usage);
  return body;
}

json text_chunk(const AnswerHead& head, int32_t choice, const TextPiece& piece, bool first, bool logprobs,
                int64_t text_begin, const TextCodec& codec) {
  json entry = {{"index", choice}, {"finish_reason", nullptr}};
  entry["logprobs"] = logprobs_or_null(head, logprobs, {{}, piece.tokens, text_begin}, codec);
  if (head.token_ids) entry["token_ids"] = token_ids_json(piece.tokens);
  if (head.endpoint == Endpoint::kChat) {
    entry["delta"] = piece.call ? call_delta(*piece.call) : json{{"content", piece.text}};
    if (first) entry["delta"]["role"] = "assistant";
  } else {
    entry["text"] = piece.text;
  }
  return with_head(head, true, json::array({std::move(entry)}));
}

json prompt_chunk(const AnswerHead& head, int32_t choice, const std::string& text, std::span<const ShownToken> prompt,
                  const TextCodec& codec) {
  json entry = {{"index", choice}, {"finish_reason", nullptr}, {"text", text}};
  entry["logprobs"] = completion_logprobs({prompt, {}, 0}, codec);
  if (head.token_ids) entry["token_ids"] = json::array();
  return with_head(head, true, json::array({std::move(entry)}));
}

json finish_chunk(const AnswerHead& head, int32_t choice, const std::string& finish_reason, bool first) {
  json entry = {{"index", choice}, {"finish_reason", finish_reason}, {"logprobs", nullptr}};
  if (head.endpoint == Endpoint::kChat) {
    entry["delta"] = json::object();
    if (first) entry["delta"] = {{"role", "assistant"}, {"content", ""}};
  } else {
    entry["text"] = "";
  }
  return with_head(head, true, json::array({std::move(entry)}));
}

json usage_chunk(const AnswerHead& head, json usage) {
  json chunk = with_head(head, true, json::array());
  chunk["usage"] = std::move(usage);
  return chunk;
}

json progress_json(const PrefillProgress& progress) {
  json workers = json::array();
  for (const double fraction : progress.ranks) workers.push_back({{"rank", workers.size()}, {"fraction", fraction}});
  return {{"fraction", progress.fraction}, {"workers", std::move(workers)}};
}

json progress_chunk(const AnswerHead& head, int32_t prompt_tokens, const PrefillProgress& progress,
                    double elapsed_seconds) {
  json chunk = with_head(head, true, json::array());
  chunk["prompt_progress"] = {{"total", prompt_tokens},
                              {"cache", progress.cached_tokens},
                              {"processed", static_cast<int32_t>(progress.fraction * prompt_tokens)},
                              {"time_ms", static_cast<int64_t>(elapsed_seconds * 1e3)},
                              {"workers", progress_json(progress)["workers"]}};
  return chunk;
}

json report_json(const TtftReport& report) {
  return {{"ttft_seconds", report.ttft_seconds},
          {"stages", stages_json(report.stages)},
          {"workers", ranks_json(report.ranks)},
          {"plan",
           {{"strategy", name(report.strategy)},
            {"cuts", report.cuts},
            {"predicted_ttft_seconds", report.predicted_ttft_seconds}}},
          {"first_logits_sha256", report.first_logits_sha256},
          {"compute", report.compute},
          {"transport", report.transport},
          {"attempts", report.attempts}};
}

json token_usage_json(int64_t prompt_tokens, std::span<const ChoiceResult> results) {
  int64_t completion_tokens = 0;
  for (const ChoiceResult& result : results) completion_tokens += result.completion_tokens;
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens}};
}

json usage_json(int64_t prompt_tokens, std::span<const ChoiceResult> results, int32_t choices_per_prompt) {
  json usage = token_usage_json(prompt_tokens, results);
  int64_t cached = 0, written = 0;  // of each prompt once, as its tokens are counted
  for (size_t i = 0; i < results.size(); i += static_cast<size_t>(choices_per_prompt)) {
    if (!results[i].report) continue;
    cached += results[i].report->cached_tokens;
    written += results[i].report->cache_write_tokens;
  }
  usage["prompt_tokens_details"] = {{"cached_tokens", cached}, {"cache_write_tokens", written}};
  if (!results.empty() && results.front().report) usage["runahead"] = report_json(*results.front().report);
  return usage;
}

std::string server_timing(const TtftReport& report) {
  std::string header;
  const json stages = stages_json(report.stages);
  for (const auto& [stage, stage_seconds] : stages.items()) {
    char entry[64];
    std::snprintf(entry, sizeof entry, "%s;dur=%.3f, ", stage.c_str(), stage_seconds.get<double>() * 1e3);
    header += entry;
  }
  char total[64];
  std::snprintf(total, sizeof total, "ttft;dur=%.3f", report.ttft_seconds * 1e3);
  return header + total;
}

}  // namespace runahead
