// Answers in OpenAI's shapes: the whole body, the chunks of a stream, usage, log-probabilities. Pure functions of
// values.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "services/gateway/generation.h"

namespace runahead {

// What all bodies and chunks of one answer have in common.
struct AnswerHead {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string id;  // "chatcmpl-...", "cmpl-..."
  std::string model;
  int64_t created_unix_s = 0;
  bool token_ids = false;  // choices carry the ids of their tokens
};

// One choice of a whole answer.
struct AnswerChoice {
  std::string text;                // with the echoed prompt
  std::vector<ShownToken> prompt;  // with its log-probabilities, for who asks
  int64_t text_begin = 0;          // characters of the echoed prompt; 0 if nobody asks
  std::vector<ShownToken> tokens;  // for log-probabilities
  std::vector<ToolCall> calls;
  std::string finish_reason;
};

nlohmann::json answer_body(const AnswerHead& head, std::span<const AnswerChoice> choices, bool logprobs,
                           const TextCodec& codec, nlohmann::json usage);

// A chunk with text or a part of a call. `first` adds the role (chat). text_begin: characters of the echoed prompt.
nlohmann::json text_chunk(const AnswerHead& head, int32_t choice, const TextPiece& piece, bool first, bool logprobs,
                          int64_t text_begin, const TextCodec& codec);
// The first chunk of a choice whose prompt's log-probabilities are asked for.
nlohmann::json prompt_chunk(const AnswerHead& head, int32_t choice, const std::string& text,
                            std::span<const ShownToken> prompt, const TextCodec& codec);
nlohmann::json finish_chunk(const AnswerHead& head, int32_t choice, const std::string& finish_reason, bool first);
nlohmann::json usage_chunk(const AnswerHead& head, nlohmann::json usage);
// {"fraction", "workers": [{"rank", "fraction"}]}.
nlohmann::json progress_json(const PrefillProgress& progress);
// llama.cpp's field, for clients that asked for it.
nlohmann::json progress_chunk(const AnswerHead& head, int32_t prompt_tokens, const PrefillProgress& progress,
                              double elapsed_seconds);

// {"prompt_tokens", "completion_tokens", "total_tokens"}, of all choices.
nlohmann::json token_usage_json(int64_t prompt_tokens, std::span<const ChoiceResult> results);
// The same and "runahead": where the time of the first choice went.
nlohmann::json usage_json(int64_t prompt_tokens, std::span<const ChoiceResult> results, int32_t choices_per_prompt);
nlohmann::json report_json(const TtftReport& report);
// The same for the header Server-Timing, in milliseconds.
std::string server_timing(const TtftReport& report);

// A completion's tokens: those of the echoed prompt, and the generated ones behind `begin` characters of it.
struct ScoredText {
  std::span<const ShownToken> prompt, tokens;
  int64_t begin = 0;
};
// OpenAI's two forms of log-probabilities: of chat and of completions. text_offset counts characters, from the
// beginning of the text, an echoed prompt included. The first token of a prompt has null for its numbers.
nlohmann::json chat_logprobs(std::span<const ShownToken> tokens, const TextCodec& codec);
nlohmann::json completion_logprobs(const ScoredText& text, const TextCodec& codec);

}  // namespace runahead
