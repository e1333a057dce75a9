// Between a generation and the sink of its answer: pieces of text become pieces of text and parts of calls. Where nothing is said
// about tools, all passes as it is.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/generation.h"
#include "services/gateway/tools/tool_call_parser.h"

namespace runahead {

inline constexpr const char* kCallIdPrefix = "call_";  // OpenAI's

// One choice. The ids of its calls follow from `id_seed`: who reads the same answer again finds the same. Pure.
class ToolPieces {
 public:
  // id_prefix: "call_", "toolu_"; models whose template wants ids of nine characters get those.
  ToolPieces(const ToolReading& reading, std::string id_prefix, std::string id_seed);

  // Each piece has text, or is a part of a call. The tokens go with the first; `keeps_empty`: also if nothing else does.
  std::vector<TextPiece> push(TextPiece piece, bool keeps_empty);
  std::vector<TextPiece> flush();
  int32_t calls() const { return calls_; }

 private:
  std::vector<TextPiece> pieces(std::vector<ToolEvent> events);
  std::string new_id() const;

  ToolCallParser parser_;
  std::string id_prefix_, id_seed_;
  bool short_ids_;
  int32_t calls_ = 0;
};

// "stop" is "tool_calls" where the answer has called.
std::string finish_reason_with(int32_t calls, std::string finish_reason);

// Control tokens whose spelling an answer that is read so shows.
std::map<TokenId, std::string> shown_tokens(const std::optional<ToolReading>& reading, const TextCodec& codec);
IncrementalDetokenizer empty_answer(const GenerationRequest& request, const TextCodec& codec);

class ToolSink final : public ChoiceSink {
 public:
  // sink and request outlive this.
  ToolSink(ChoiceSink& sink, const GenerationRequest& request, std::string id_prefix, std::string answer_id);

  Task<void> piece(int32_t choice, TextPiece piece) override;
  Task<void> prompt(int32_t choice, std::vector<SampledToken> scored) override;
  Task<void> progress(int32_t choice, PrefillProgress progress) override;
  Task<void> finished(int32_t choice, std::string finish_reason) override;

 private:
  Task<void> send(int32_t choice, std::vector<TextPiece> pieces);

  ChoiceSink& sink_;
  const bool keeps_tokens_;
  std::vector<ToolPieces> choices_;  // empty: no tools
  std::vector<bool> begun_;
};

}  // namespace runahead
