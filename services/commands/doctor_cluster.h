// What `runahead doctor --url` says of a cluster that runs: is it ready, and which worker or link is slower than its like. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace runahead {

struct Finding {
  enum class Grade { kOk, kSlow, kFailed };

  std::string what;
  Grade grade = Grade::kOk;
  std::string detail;
  ErrorCode code = ErrorCode::kInternal;  // of kFailed
};

// The last measured transfer of K/V from one worker to another.
struct MeasuredLink {
  std::string from, to, transport;
  double bytes_per_second = 0;
};
// Of the coordinator's metrics as text; lines that are none of these are skipped.
std::vector<MeasuredLink> links_in(std::string_view metrics);

// cluster: the answer of GET /v1/cluster.
std::vector<Finding> findings_of_cluster(const nlohmann::json& cluster, const std::vector<MeasuredLink>& links);

}  // namespace runahead
