// The events of a streamed response (response.created to response.completed), numbered. The same tokens give the same events
// with the same numbers, so that a reader who names the last one it has (starting_after) goes on exactly there, also after a
// restart.
//   threads  the io_context thread.
#pragma once

#include <string>

#include "services/gateway/responses/response_body.h"
#include "services/http/sse_writer.h"

namespace runahead {

class ResponseEvents {
 public:
  // seen: the number of the last event that the reader has; -1: none. The writer outlives this.
  ResponseEvents(SseWriter& writer, const TextCodec& codec, int64_t seen = -1)
      : writer_(writer), codec_(codec), seen_(seen) {}

  // `job` as it is before its first token.
  Task<void> begin(const JobView& job);
  // The first piece opens the item, also where it is without text.
  Task<void> text(TextPiece piece);
  // `job` has ended.
  Task<void> end(const JobView& job);

 private:
  Task<void> open_item();
  Task<void> close_item(const JobView& job);
  Task<void> send(const char* type, nlohmann::json event);
  nlohmann::json of_part() const;

  SseWriter& writer_;
  const TextCodec& codec_;
  int64_t seen_;
  int64_t next_ = 0;
  bool open_ = false;
  bool logprobs_ = false;
  std::string id_;
};

}  // namespace runahead
