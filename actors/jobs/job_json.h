// What a store keeps of a job, as JSON: the request (all that is needed to run it again) and the result. Pure; any
// thread, and a store's own for long ones.
#pragma once

#include <string>

#include "actors/jobs/job_store.h"

namespace runahead {

std::string to_json(const InferenceRequest& request);
std::string to_json(const StoredResult& result);
// kCorrupt if the text is not what to_json wrote: the store was changed by somebody else.
Result<InferenceRequest> request_from_json(const std::string& text);
Result<StoredResult> result_from_json(const std::string& text);

}  // namespace runahead
