#include "services/gateway/responses/output_parts.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace runahead {

OutputParts::OutputParts(const JobText& text, const std::string& response_id) : keeps_tokens_(text.logprobs) {
  if (text.tools) tools_.emplace(*text.tools, kCallIdPrefix, response_id);
}

std::vector<TextPiece> OutputParts::split(TextPiece piece) {
  if (tools_) return tools_->push(std::move(piece), keeps_tokens_);
  std::vector<TextPiece> whole;
  whole.push_back(std::move(piece));
  return whole;
}

std::vector<TextPiece> OutputParts::rest() { return tools_ ? tools_->flush() : std::vector<TextPiece>(); }

// Where no tools are, a message begins with the first token, also one without text.
bool OutputParts::begins(const TextPiece& piece) const {
  if (piece.call) return !piece.call->id.empty();
  if (piece.text.empty() && tools_) return false;
  return parts_.empty() || parts_.back().call;
}

void OutputParts::add(const TextPiece& piece) {
  if (begins(piece)) {
    parts_.emplace_back();
    parts_.back().tokens = std::exchange(early_, {});
    if (piece.call) parts_.back().call = ToolCall{piece.call->id, piece.call->name, ""};
  }
  std::vector<ShownToken>& tokens = parts_.empty() ? early_ : parts_.back().tokens;
  std::ranges::copy(piece.tokens, std::back_inserter(tokens));
  if (piece.call) parts_.back().call->arguments += piece.call->arguments;
  else if (!piece.text.empty()) parts_.back().text += piece.text;
}

std::vector<OutputPart> output_of(const JobView& job, const JobText& text, const TextCodec& codec) {
  OutputParts output(text, job.head.id);
  IncrementalDetokenizer detokenizer = text.empty_answer(codec);
  const auto take = [&](const std::vector<TextPiece>& pieces) {
    for (const TextPiece& piece : pieces) output.add(piece);
  };
  for (const SampledToken& token : job.result->tokens)
    take(output.split(detokenizer.push(token, codec.token_bytes(token.token))));
  take(output.split(detokenizer.flush()));
  take(output.rest());
  if (output.parts().empty() && job.head.status == JobStatus::kSucceeded) output.begin_text();
  return output.parts();
}

}  // namespace runahead
