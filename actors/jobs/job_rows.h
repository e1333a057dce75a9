// What a store keeps of a job, as bytes (proto/job.proto): the request (all that is needed to run it again) and the result.
// Pure; any thread, and a store's own for long ones.
//   limits   those that a request has where it is taken, and a worker where it is asked (base/limits.h).
#pragma once

#include <string>

#include "actors/jobs/job_store.h"

namespace runahead {

// Never empty.
std::string serialize(const InferenceRequest& request);
std::string serialize(const StoredResult& result);
// kCorrupt if the bytes are not what serialize() wrote: the store was changed by somebody else.
Result<InferenceRequest> parse_stored_request(const std::string& bytes);
Result<StoredResult> parse_stored_result(const std::string& bytes);

}  // namespace runahead
