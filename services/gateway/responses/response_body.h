// OpenAI's Responses API, the way out: a job as a response, and the items of its conversation. A response is a job whose
// client_json also holds what the API shows again, so that it is the same answer while it runs, when it has ended and after a
// restart. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "services/gateway/job_text.h"
#include "services/gateway/request/response_request.h"
#include "services/gateway/responses/output_parts.h"

namespace runahead {

// JobHead::kind of responses.
inline constexpr const char* kResponseKind = "response";

// JobSubmission::client_json of a response.
std::string client_json_of(const JobText& text, const ResponseRequest& request);

struct KeptResponse {
  JobText text;
  nlohmann::json shown = nlohmann::json::object();
  nlohmann::json input = nlohmann::json::array();  // items
};
KeptResponse kept_response(const std::string& client_json);

nlohmann::json response_json(const JobView& job, const TextCodec& codec);
// The items of its answer; none before there is any.
nlohmann::json output_items(const JobView& job, const KeptResponse& kept, const TextCodec& codec);
// The part at `index` of an answer. status: "in_progress" leaves its text out.
nlohmann::json output_item(const std::string& response_id, size_t index, const OutputPart& part, const char* status);
// logprobs: null where nobody asks for them.
nlohmann::json text_part(const std::string& text, nlohmann::json logprobs);

// The items of one turn, with ids: what was asked, then what was answered.
nlohmann::json input_items(const std::string& response_id, const KeptResponse& kept);
// "msg_..." or "fc_..." of a part of the answer.
std::string item_id(const std::string& response_id, size_t index, bool is_call);

}  // namespace runahead
