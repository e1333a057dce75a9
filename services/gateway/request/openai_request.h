// The bodies of /v1/completions, /v1/chat/completions and /v1/jobs as one typed request. Every number has its bounds,
// every unknown field is an error unless it is null (not given), nothing is cut or ignored in silence. Pure: any
// thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "services/gateway/request/generation_defaults.h"
#include "services/gateway/request/json_reader.h"
#include "services/gateway/request/text_codec.h"
#include "services/gateway/request/tool_request.h"

namespace runahead {

enum class Endpoint { kCompletions, kChat };

// What a request is checked against.
struct ServedModel {
  std::string name;                  // what answers carry
  std::vector<std::string> aliases;  // what `model` may also say
  int32_t vocab_size = 0;
  int32_t context_len = 0;  // tokens; 0: not known before the first worker has come
  int64_t kv_tokens = 0;    // that the largest decode worker's K/V memory holds; 0: not known
  GenerationDefaults defaults = {};

  bool answers_to(std::string_view model) const;
};

struct TokenizedPrompt {
  std::string text;             // as sent or rendered; empty if ids were sent
  std::vector<TokenId> tokens;  // set by tokenize_prompts()
  std::vector<int64_t> offsets;  // characters of the text before each token; only where scores_prompt()
};

struct GenerationRequest {
  Endpoint endpoint = Endpoint::kCompletions;
  std::vector<TokenizedPrompt> prompts;  // one for chat
  nlohmann::ordered_json messages;       // chat only: what take_messages() gives
  ToolUse tools;                         // chat only
  bool add_generation_prompt = true;
  bool parse_special = false;      // completions: "<|im_end|>" in the prompt is that token
  int32_t choices_per_prompt = 1;  // n
  std::optional<int32_t> max_tokens;  // 0: only the prompt is echoed
  int32_t min_tokens = 0;             // before them neither an end token nor a stop string ends the answer
  std::optional<uint64_t> seed;
  bool logprobs = false;
  bool echo = false;
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // vLLM's field: every chunk carries the usage so far
  bool return_progress = false;
  std::string
      structured_at;  // where in the body the format of a structured answer lies ("/response_format"); empty: a free one
  bool return_token_ids = false;  // vLLM's field: each choice and chunk carries `token_ids`
  std::vector<std::string> stop;
  // What every choice shares; stop_tokens beside the model's own. What is a choice's own is inference_request()'s.
  InferenceRequest inference;

  // Log-probabilities of the prompt are asked for.
  bool scores_prompt() const { return echo && logprobs; }
  const TokenizedPrompt& prompt_of(int32_t choice) const {
    return prompts[static_cast<size_t>(choice / choices_per_prompt)];
  }
  int32_t num_choices() const { return static_cast<int32_t>(prompts.size()) * choices_per_prompt; }
};

Result<GenerationRequest> parse_generation(Endpoint endpoint, const nlohmann::json& body, const ServedModel& model);
// The field `model`: absent, or a name of the served model; else kNotFound.
void take_model(JsonReader& reader, const ServedModel& model);
// The field `metadata`: at most 16 strings of 512 bytes by names of 64, which are shown again; null: none.
nlohmann::json take_metadata(JsonReader& reader);
// Messages of chat, /tokenize and /apply-template: checked, text parts joined, "developer" made "system". Each has "role" and
// "content", both strings; an assistant's may have "tool_calls" (take_tool_calls()), one of role tool has "tool_call_id" and the
// "name" of the tool.
nlohmann::ordered_json take_messages(JsonReader& reader);

// Renders and tokenizes. kInvalidArgument for an empty prompt, kContextOverflow with both numbers.
Result<void> tokenize_prompts(GenerationRequest& request, const TextCodec& codec, int32_t context_len);

// Answer tokens of a request that names no max_tokens.
int32_t default_max_tokens(Endpoint endpoint, int32_t prompt_len, const ServedModel& model);

// The request of choice `choice` (prompts x n) for the actors: request.inference with what is that choice's own.
InferenceRequest inference_request(const GenerationRequest& request, int32_t choice, const ServedModel& model,
                                   const TextCodec& codec);

}  // namespace runahead
