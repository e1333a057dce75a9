// OpenAI's Responses API, the way out: a job as a response, and the items of its conversation. A response is a job whose
// client_json also holds what the API shows again, so that it is the same answer while it runs, when it has ended and after a
// restart. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "services/gateway/job_text.h"
#include "services/gateway/responses/response_request.h"

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
// The answer's only item; empty content where there is none yet.
nlohmann::json output_item(const JobView& job, const KeptResponse& kept, const TextCodec& codec);
// An item before its first token.
nlohmann::json begun_item(const std::string& response_id);
nlohmann::json text_part(const std::string& text);

// The items of one turn, with ids: what was asked, then what was answered.
nlohmann::json input_items(const std::string& response_id, const KeptResponse& kept);
// "msg_..." of the response's answer.
std::string item_id(const std::string& response_id);

}  // namespace runahead
