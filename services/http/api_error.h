// Errors as OpenAI's clients expect them, on every route: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/result.h"
#include "services/http/http_message.h"

namespace runahead {

nlohmann::json error_json(const Error& error);
// Status, body and, for kOverloaded and kUnavailable, Retry-After.
HttpReply error_reply(const Error& error);
HttpReply reply_of(Result<HttpReply> result);
// For statuses of HTTP itself that no ErrorCode stands for: 403, 405, 408, 411, 415, 431.
HttpReply http_error(int status, std::string code, std::string message);

HttpReply json_reply(const nlohmann::json& body, int status = 200);

}  // namespace runahead
