// ProcessInfo: what every process says of itself in its metrics.
#pragma once

#include <string>

namespace runahead {

struct ProcessInfo {
  std::string role;  // "coordinator", "prefill", "decode"
  std::string version, revision;
  std::string model_name;
};

}  // namespace runahead
