#include "services/gateway/generation_memory.h"

#include <algorithm>

#include "base/limits.h"

namespace runahead {
namespace {

constexpr size_t kPromptTokenBytes = 24;  // its id three times, its text
constexpr size_t kAnswerTokenBytes = 48;  // of what is read when it is whole, and of what waits for its reader
constexpr size_t kSentTokenBytes = 8;  // of what was read: ids, for another attempt
constexpr size_t kAlternativeBytes = 16;
constexpr size_t kAnswerTokensMax = 1 << 20;  // no request makes more by its deadline: 1,700 a second for 600 s

size_t alternatives(int32_t top) { return top < 0 ? 0 : kAlternativeBytes * (1 + static_cast<size_t>(top)); }

size_t bytes_of(const InferenceRequest& request, bool streamed) {
  const size_t prompt = request.prompt.size();
  const size_t answer = std::min(static_cast<size_t>(std::max(request.max_new_tokens, 1)), kAnswerTokensMax);
  const size_t whole = streamed ? std::min(answer, limits::kUnreadTokensMax) : answer;
  return prompt * (kPromptTokenBytes + alternatives(request.prompt_logprobs.value_or(-1))) +
         whole * (kAnswerTokenBytes + alternatives(request.sampling.top_logprobs)) + (answer - whole) * kSentTokenBytes;
}

}  // namespace

Result<GenerationMemory::Hold> GenerationMemory::take(std::span<const InferenceRequest> choices, bool streamed) {
  size_t bytes = 0;
  for (const InferenceRequest& choice : choices) bytes += bytes_of(choice, streamed);
  if (bytes > bytes_max_)
    return fail(ErrorCode::kTooLarge,
                "the prompts and answers of this request need more memory than the service has for all; send fewer of "
                "them, or smaller max_tokens");
  if (used_bytes_ + bytes > bytes_max_)
    return overloaded("too many prompts and answers are in work; try again, or with smaller max_tokens", 1);
  return Hold(*this, bytes);
}

}  // namespace runahead
