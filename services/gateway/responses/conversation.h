// The items of a conversation that goes on over several responses: each names the one before it, and all lie in the job store.
//   limits   kTurnsMax responses, and as many bytes of text as a body may have.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "actors/jobs/jobs_api.h"
#include "services/gateway/generation_routes.h"

namespace runahead {

inline constexpr size_t kTurnsMax = 1024;

// A response of this owner. kNotFound, also where the job is none.
Task<JobView> find_response(JobsApi& jobs, std::string owner, std::string id);

// All items up to and with the answer of the response `last`, oldest first. kInvalidArgument where a response has not succeeded,
// kNotFound where one was deleted or is past its keeping; param: "previous_response_id".
Task<nlohmann::json> conversation(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string last);

}  // namespace runahead
