// ClusterProbe: a running cluster as `plan search` and `plan profile` see it: who is ready, and what one prompt takes there with
// given cuts. It asks over the API; one request at a time.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "services/http/http_client.h"

namespace runahead {

class ClusterProbe {
 public:
  ClusterProbe(const std::string& url, const std::string& api_key);

  // GET /v1/cluster; kUnavailable if no prefill worker is ready.
  Result<nlohmann::json> cluster() const;
  // GET /metrics, as text.
  Result<std::string> metrics() const;
  static int32_t ready_prefill_workers(const nlohmann::json& cluster);
  // `usage.runahead` of a prompt of so many tokens; no cuts: one worker. kInternal if two cuts of one prompt gave unlike logits.
  Result<nlohmann::json> ask(int32_t tokens, const std::vector<int32_t>& cuts);

 private:
  HttpClient client_;
  std::map<int32_t, std::string> logits_;  // SHA-256, by tokens
  uint64_t salt_;  // of this probe's prompts
  uint64_t asked_ = 0;
};

}  // namespace runahead
