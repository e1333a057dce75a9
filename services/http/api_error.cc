#include "services/http/api_error.h"

#include <algorithm>

namespace runahead {
namespace {

using nlohmann::json;

constexpr int kRetryAfterSecondsMin = 1;  // no worker yet: registration takes well under a second

std::string_view type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

json error_object(int status, std::string_view code, std::string_view message, std::string_view param) {
  return {{"error",
           {{"message", message},
            {"type", type_of(status)},
            {"param", param.empty() ? json(nullptr) : json(param)},
            {"code", code}}}};
}

}  // namespace

json error_json(const Error& error) {
  return error_object(http_status(error.code), name(error.code), error.message, error.param);
}

HttpReply error_reply(const Error& error) {
  HttpReply reply = json_reply(error_json(error), http_status(error.code));
  reply.error_code = name(error.code);
  if (error.code == ErrorCode::kOverloaded || error.code == ErrorCode::kUnavailable)
    reply.headers.emplace_back("Retry-After",
                               std::to_string(std::max(error.retry_after_seconds, kRetryAfterSecondsMin)));
  return reply;
}

HttpReply reply_of(Result<HttpReply> result) { return result ? std::move(*result) : error_reply(result.error()); }

HttpReply http_error(int status, std::string code, std::string message) {
  HttpReply reply = json_reply(error_object(status, code, message, ""), status);
  reply.error_code = std::move(code);
  return reply;
}

HttpReply json_reply(const json& body, int status) { return {.status = status, .body = to_text(body)}; }

}  // namespace runahead
