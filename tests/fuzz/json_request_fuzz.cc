// The border of the API under arbitrary bytes: JSON bodies of every route, headers, and text that comes out of a model.
// What is accepted must keep the bounds that the rest of the system relies on. The first byte says which: completions, cHat,
// Messages, Responses, hEader, Text.
#include <cstdlib>

#include "base/limits.h"
#include "base/utf8.h"
#include "services/gateway/answer/incremental_detokenizer.h"
#include "services/gateway/request/messages_request.h"
#include "services/gateway/request/openai_request.h"
#include "services/gateway/request/response_request.h"
#include "services/http/api_error.h"
#include "services/http/header_check.h"

namespace {

using namespace runahead;

const ServedModel kModel{"toy", {}, 300, 4096};

void require(bool condition) {
  if (!condition) std::abort();
}

void check_error(const Error& error) {
  require(!error.message.empty());
  require(nlohmann::json::accept(to_text(error_json(error))));
}

void check(const Result<GenerationRequest>& request) {
  if (!request) return check_error(request.error());
  require(request->num_choices() >= 1 && request->num_choices() <= limits::kPromptChoicesMax);
  require(request->max_tokens.value_or(1) >= 0);
  require(request->stop.size() <= static_cast<size_t>(limits::kStopStringsMax));
  require(request->inference.sampling.temperature >= 0 && request->inference.sampling.top_p > 0);
  require(request->inference.sampling.top_logprobs <= limits::kTopLogprobsMax);
  for (const TokenizedPrompt& prompt : request->prompts)
    for (const TokenId token : prompt.tokens) require(token >= 0 && token < kModel.vocab_size);
}

void check_response(const nlohmann::json& body) {
  const Result<ResponseRequest> request = parse_response(body, kModel);
  if (!request) return check_error(request.error());
  check(response_chat(*request, nlohmann::json::array(), kModel));
}

void parse_body(char route, std::string_view text) {
  const Result<ParsedJson> body = parse_json_object(text);
  if (!body) return check_error(body.error());
  switch (route) {
    case 'c':
      return check(parse_generation(Endpoint::kCompletions, *body, kModel));
    case 'h':
      return check(parse_generation(Endpoint::kChat, *body, kModel));
    case 'm':
      check(parse_messages(*body, kModel, MessagesUse::kCountTokens));
      return check(parse_messages(*body, kModel, MessagesUse::kAnswer));
    default:
      return check_response(*body);
  }
}

// The bytes as tokens of one to four bytes; the first ones are a stop string.
void assemble(std::string_view bytes) {
  std::string stop(bytes.substr(0, 3));
  IncrementalDetokenizer text(stop.empty() ? std::vector<std::string>{} : std::vector<std::string>{stop});
  bytes.remove_prefix(stop.size());
  bool stopped = false;
  for (size_t at = 0; at < bytes.size() && !stopped;) {
    const size_t length = 1 + static_cast<unsigned char>(bytes[at]) % 4;
    const TextPiece piece = text.push({}, std::string(bytes.substr(at, length)));
    require(valid_utf8(piece.text) == piece.text);
    stopped = piece.stopped;
    at += length;
  }
  if (!stopped) require(nlohmann::json::accept(nlohmann::json(text.flush().text).dump()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'c':
    case 'h':
    case 'm':
    case 'r':
      parse_body(static_cast<char>(data[0]), input);
      break;
    case 'e':
      (void)check_header(input);
      break;
    case 't':
      assemble(input);
      break;
    default:
      break;
  }
  return 0;
}
