// What a job's row holds, as JSON: the request (all that is needed to run it again) and the result. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/inference.h"

namespace runahead {

struct StoredRequest {
  InferenceRequest request;
  std::string client_json;
};
struct StoredResult {
  std::vector<SampledToken> tokens;
  std::optional<FinishedEvent> finished;  // succeeded
  std::optional<Error> error;             // failed
};

std::string to_json(const StoredRequest& stored);
std::string to_json(const StoredResult& stored);
// kCorrupt if the text is not what to_json wrote: the store was changed by somebody else.
Result<StoredRequest> request_from_json(const std::string& text);
Result<StoredResult> result_from_json(const std::string& text);

}  // namespace runahead
