// The events of a streamed response (response.created to response.completed), numbered. The same tokens give the same events
// with the same numbers, so that a reader who names the last one it has (starting_after) goes on exactly there, also after a
// restart.
//   threads  the io_context thread.
#pragma once

#include <string>

#include "services/gateway/responses/output_parts.h"
#include "services/gateway/responses/response_body.h"
#include "services/http/sse_writer.h"

namespace runahead {

class ResponseEvents {
 public:
  // seen: the number of the last event that the reader has; -1: none. The writer outlives this.
  ResponseEvents(SseWriter& writer, const TextCodec& codec, const JobView& job, int64_t seen = -1)
      : writer_(writer),
        codec_(codec),
        id_(job.head.id),
        kept_(kept_response(job.client_json)),
        parts_(kept_.text, id_),
        seen_(seen) {}

  // `job` as it is before its first token.
  Task<void> begin(const JobView& job);
  // More of the answer. Where no tools are, the first piece opens the item, also one without text.
  Task<void> text(TextPiece piece);
  // `job` has ended.
  Task<void> end(const JobView& job);

 private:
  Task<void> show(std::vector<TextPiece> pieces);
  Task<void> open_part();
  Task<void> close_part(const char* status);
  Task<void> close_text(const OutputPart& part);
  Task<void> send_delta(const TextPiece& piece);
  Task<void> send(const char* type, nlohmann::json event);
  nlohmann::json of_item() const;
  nlohmann::json of_text() const;
  nlohmann::json logprobs(std::span<const ShownToken> tokens) const;

  SseWriter& writer_;
  const TextCodec& codec_;
  const std::string id_;
  const KeptResponse kept_;
  OutputParts parts_;  // the last one is open
  int64_t seen_;
  int64_t next_ = 0;
};

}  // namespace runahead
