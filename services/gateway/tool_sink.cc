#include "services/gateway/tool_sink.h"

#include <utility>

#include "base/sha256.h"

namespace runahead {

ToolPieces::ToolPieces(const ToolReading& reading, std::string id_prefix, std::string id_seed)
    : parser_(reading),
      id_prefix_(std::move(id_prefix)),
      id_seed_(std::move(id_seed)),
      short_ids_(reading.format == ToolFormat::kMistral || reading.format == ToolFormat::kMistralArgs) {}

std::string ToolPieces::new_id() const {
  constexpr size_t kDigits = 24, kShortDigits = 9;  // what Mistral's templates insist on
  const std::string seed = id_seed_ + ":" + std::to_string(calls_);
  const std::string digits = hex(sha256(seed));
  return short_ids_ ? digits.substr(0, kShortDigits) : id_prefix_ + digits.substr(0, kDigits);
}

std::vector<TextPiece> ToolPieces::pieces(std::vector<ToolEvent> events) {
  std::vector<TextPiece> out;
  for (ToolEvent& event : events) {
    TextPiece& piece = out.emplace_back();
    switch (event.kind) {
      case ToolEvent::Kind::kText:
        piece.text = std::move(event.text);
        break;
      case ToolEvent::Kind::kCall:
        piece.call = ToolDelta{calls_, new_id(), std::move(event.text), ""};
        ++calls_;
        break;
      case ToolEvent::Kind::kArguments:
        piece.call = ToolDelta{calls_ - 1, "", "", std::move(event.text)};
        break;
    }
  }
  return out;
}

std::vector<TextPiece> ToolPieces::push(TextPiece piece, bool keeps_empty) {
  std::vector<TextPiece> out = pieces(parser_.push(piece.text));
  if (out.empty() && keeps_empty) out.emplace_back();
  if (!out.empty()) out.front().tokens = std::move(piece.tokens);
  return out;
}

std::vector<TextPiece> ToolPieces::flush() { return pieces(parser_.flush()); }

std::string finish_reason_with(int32_t calls, std::string finish_reason) {
  return calls > 0 && finish_reason == "stop" ? "tool_calls" : finish_reason;
}

std::map<TokenId, std::string> shown_tokens(const std::optional<ToolReading>& reading, const TextCodec& codec) {
  std::map<TokenId, std::string> shown;
  if (!reading) return shown;
  for (const std::string_view marker : markers(reading->format)) {
    const auto ids = codec.encode(marker, /*add_special=*/false, /*parse_special=*/true);
    if (ids && ids->size() == 1 && codec.token_bytes(ids->front()).empty()) shown.emplace(ids->front(), marker);
  }
  return shown;
}

IncrementalDetokenizer empty_answer(const GenerationRequest& request, const TextCodec& codec) {
  return IncrementalDetokenizer(request.stop, request.min_tokens, shown_tokens(request.tools.reading, codec));
}

ToolSink::ToolSink(ChoiceSink& sink, const GenerationRequest& request, std::string id_prefix, std::string answer_id)
    : sink_(sink),
      keeps_tokens_(request.logprobs || request.return_token_ids),
      begun_(static_cast<size_t>(request.num_choices())) {
  if (!request.tools.reading) return;
  for (int32_t choice = 0; choice < request.num_choices(); ++choice)
    choices_.emplace_back(*request.tools.reading, id_prefix, answer_id + ":" + std::to_string(choice));
}

Task<void> ToolSink::piece(int32_t choice, TextPiece piece) {
  if (choices_.empty()) co_return co_await sink_.piece(choice, std::move(piece));
  const auto at = static_cast<size_t>(choice);
  const bool first = !begun_[at];
  begun_[at] = true;
  std::vector<TextPiece> pieces = choices_[at].push(std::move(piece), first || keeps_tokens_);
  co_return co_await send(choice, std::move(pieces));
}

Task<void> ToolSink::send(int32_t choice, std::vector<TextPiece> pieces) {
  for (TextPiece& piece : pieces) {
    auto sent = co_await sink_.piece(choice, std::move(piece));
    CO_TRY(sent);
  }
  co_return Result<void>{};
}

Task<void> ToolSink::prompt(int32_t choice, std::vector<SampledToken> scored) {
  return sink_.prompt(choice, std::move(scored));
}

Task<void> ToolSink::progress(int32_t choice, PrefillProgress progress) {
  return sink_.progress(choice, std::move(progress));
}

Task<void> ToolSink::finished(int32_t choice, std::string finish_reason) {
  if (choices_.empty()) co_return co_await sink_.finished(choice, std::move(finish_reason));
  ToolPieces& pieces = choices_[static_cast<size_t>(choice)];
  std::vector<TextPiece> rest = pieces.flush();
  auto sent = co_await send(choice, std::move(rest));
  CO_TRY(sent);
  std::string reason = finish_reason_with(pieces.calls(), std::move(finish_reason));
  co_return co_await sink_.finished(choice, std::move(reason));
}

}  // namespace runahead
