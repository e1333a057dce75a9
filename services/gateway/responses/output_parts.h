// The answer of a response, told apart into messages and calls of tools: the items of its output. The same tokens give the same
// parts and ids, however they come. Pure; one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "services/gateway/job_text.h"
#include "services/gateway/tool_sink.h"

namespace runahead {

struct OutputPart {
  std::string text;
  std::vector<ShownToken> tokens;  // of the text
  std::optional<ToolCall> call;  // instead of text
};

class OutputParts {
 public:
  OutputParts(const JobText& text, const std::string& response_id);

  // A piece of the answer as pieces that are each text or a part of a call; what is held back at its end.
  std::vector<TextPiece> split(TextPiece piece);
  std::vector<TextPiece> rest();

  // Is this one of split() the first of a part?
  bool begins(const TextPiece& piece) const;
  void add(const TextPiece& piece);
  void begin_text() { parts_.emplace_back(); }
  const std::vector<OutputPart>& parts() const { return parts_; }

 private:
  std::optional<ToolPieces> tools_;  // none: all is text
  bool keeps_tokens_;
  std::vector<ShownToken> early_;  // of no part yet
  std::vector<OutputPart> parts_;
};

// Of a job that has ended: at least one where it has succeeded.
std::vector<OutputPart> output_of(const JobView& job, const JobText& text, const TextCodec& codec);

}  // namespace runahead
