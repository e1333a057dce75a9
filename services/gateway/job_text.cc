#include "services/gateway/job_text.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "services/gateway/tool_sink.h"
#include "services/gateway/trace_routes.h"

namespace runahead {

using nlohmann::json;

IncrementalDetokenizer JobText::empty_answer(const TextCodec& codec) const {
  return IncrementalDetokenizer(stop, min_tokens, shown_tokens(tools, codec));
}

json to_json(const JobText& text) {
  return {{"chat", text.endpoint == Endpoint::kChat},
          {"model", text.model},
          {"echo", text.echo},
          {"stop", text.stop},
          {"min_tokens", text.min_tokens},
          {"logprobs", text.logprobs},
          {"tools", text.tools ? to_json(*text.tools) : json(nullptr)},
          {"trace", stored_trace(text.trace)}};
}

JobText job_text(const std::string& client_json) {
  const json stored = json::parse(client_json, nullptr, false);
  JobText text;
  if (!stored.is_object()) return text;
  text.endpoint = stored.value("chat", false) ? Endpoint::kChat : Endpoint::kCompletions;
  text.model = stored.value("model", "");
  text.echo = stored.value("echo", "");
  text.stop = stored.value("stop", std::vector<std::string>{});
  text.min_tokens = stored.value("min_tokens", 0);
  text.logprobs = stored.value("logprobs", false);
  text.tools = tool_reading_of(stored.value("tools", json()));
  return text;
}

StopRule job_stop_rule(const TextCodec& codec, const std::string& client_json) {
  const JobText text = job_text(client_json);
  if (text.stop.empty()) return {};
  return [&codec, answer = text.empty_answer(codec)](const SampledToken& token) mutable {
    return answer.push(token, codec.token_bytes(token.token)).stopped;
  };
}

namespace {

// Takes the calls out of the text. How many there are.
int32_t find_calls(AnswerChoice& choice, const std::optional<ToolReading>& reading, const std::string& id) {
  if (!reading) return 0;
  ToolPieces pieces(*reading, kCallIdPrefix, id);
  std::vector<TextPiece> found = pieces.push({.text = std::exchange(choice.text, {})}, /*keeps_empty=*/false);
  std::ranges::move(pieces.flush(), std::back_inserter(found));
  for (const TextPiece& piece : found) {
    choice.text += piece.text;
    if (piece.call) add(choice.calls, *piece.call);
  }
  return pieces.calls();
}

}  // namespace

// The tokens end with the stop string, by job_stop_rule(); the text ends before it.
JobAnswer job_answer(const JobView& job, const JobText& text, const TextCodec& codec) {
  IncrementalDetokenizer assembler = text.empty_answer(codec);
  JobAnswer answer{.choice = {.text = text.echo}};
  bool stopped = false;
  const auto take = [&](TextPiece piece) {
    answer.choice.text += piece.text;
    std::ranges::move(piece.tokens, std::back_inserter(answer.choice.tokens));
    stopped = piece.stopped;
  };
  const std::vector<SampledToken>& tokens = job.result->tokens;
  for (size_t i = 0; i < tokens.size() && !stopped; ++i) {
    take(assembler.push(tokens[i], codec.token_bytes(tokens[i].token)));
    ++answer.result.completion_tokens;
  }
  if (!stopped) take(assembler.flush());
  const int32_t calls = find_calls(answer.choice, text.tools, job.head.id);
  if (job.result->finished) {
    const bool by_itself = stopped || job.result->finished->reason == FinishReason::kStop;
    answer.choice.finish_reason = finish_reason_with(calls, by_itself ? "stop" : "length");
    answer.result.report = job.result->finished->report;
  }
  return answer;
}

size_t text_bytes(const JobView& job) {
  size_t bytes = job.client_json.size();
  if (job.result) bytes += json_bytes(job.result->tokens);
  return bytes;
}

}  // namespace runahead
