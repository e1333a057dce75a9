#include "services/commands/cluster_probe.h"

#include "base/json_text.h"
#include "services/commands/api_client.h"
#include "services/process/process.h"

namespace runahead {
namespace {

using nlohmann::json;

Result<json> body_of(const HttpAnswer& answer) {
  if (answer.status != 200) return std::unexpected(error_of(answer));
  json body = json::parse(answer.body, nullptr, false);
  if (!body.is_object()) return fail(ErrorCode::kInternal, "the server's answer is no JSON object");
  return body;
}

}  // namespace

ClusterProbe::ClusterProbe(const std::string& url, const std::string& api_key)
    : client_(url, kAnswerTimeout, api_key), salt_(random_seed()) {}

Result<json> ClusterProbe::cluster() const {
  json body = TRY(body_of(TRY(client_.get("/v1/cluster"))));
  if (ready_prefill_workers(body) == 0 || body.value("fingerprint", "").empty())
    return fail(ErrorCode::kUnavailable, "no prefill worker of that cluster is ready; wait for it, or start one");
  return body;
}

Result<std::string> ClusterProbe::metrics() const {
  HttpAnswer answer = TRY(client_.get("/metrics"));
  if (answer.status != 200) return std::unexpected(error_of(answer));
  return std::move(answer.body);
}

int32_t ClusterProbe::ready_prefill_workers(const json& cluster) {
  int32_t ready = 0;
  for (const json& worker : cluster.value("workers", json::array()))
    ready += worker.value("role", "") == "prefill" && worker.value("state", "") == "ready";
  return ready;
}

Result<json> ClusterProbe::ask(int32_t tokens, const std::vector<int32_t>& cuts) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < tokens; ++i) prompt.push_back(kPlainTokenMin + i * 7 % kPlainTokens);
  json body = {{"model", "default"}, {"prompt", prompt}, {"max_tokens", 1}, {"temperature", 0}};
  body["cache_salt"] = std::to_string(salt_) + "-" + std::to_string(++asked_);  // nobody has computed any of it
  if (cuts.empty()) body["runahead"] = {{"strategy", "single"}};
  else body["runahead"] = {{"cuts", cuts}};
  const json answer = TRY(body_of(TRY(client_.post("/v1/completions", to_text(body)))));
  json report = answer.value("usage", json::object()).value("runahead", json::object());
  if (!(report.value("ttft_seconds", 0.0) > 0))
    return fail(ErrorCode::kInternal, "the server's answer has no ttft_seconds");
  const std::string logits = report.value("first_logits_sha256", "");
  if (logits_.try_emplace(tokens, logits).first->second != logits)
    return fail(ErrorCode::kInternal, "two cuts of one prompt gave unlike logits; this is a fault of Runahead");
  return report;
}

}  // namespace runahead
