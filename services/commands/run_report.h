// What `runahead run` prints: one JSON object (docs/operations.md), or one human line about where the time went.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/ids.h"

namespace runahead {

struct RunReport {
  std::string text;
  std::vector<TokenId> token_ids;
  int prompt_tokens = 0;
  double total_seconds = 0;
  std::string finish_reason;
  nlohmann::json runahead;  // `usage.runahead` of the gateway's last chunk
};

// {"text","token_ids","prompt_tokens","ttft_seconds","total_seconds","stages","workers","plan","first_logits_sha256",
//  "compute","transport","finish_reason"}
nlohmann::json to_json(const RunReport& report);

// ttft 1.84 s measured (queue 0.00 ... other 0.00) · 4,096 tokens · 2 workers · the plan predicted 1.80 s · 120 tok/s
// What one worker alone would take is not said: it was not measured, and ranks that share cores cannot tell.
std::string summary_line(const RunReport& report);

}  // namespace runahead
