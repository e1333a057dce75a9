// What `runahead doctor --url` says of a cluster that runs: is it ready, and which worker or link is slower than its like. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
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

// cluster: the answer of GET /v1/cluster.
std::vector<Finding> findings_of_cluster(const nlohmann::json& cluster);

}  // namespace runahead
