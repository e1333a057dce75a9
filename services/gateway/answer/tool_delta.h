// A call of a tool as answers carry it: whole, and in the parts of a stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runahead {

struct ToolDelta {
  int32_t index = 0;  // of the call among those of its choice
  std::string id, name;  // of a call's first delta; else empty
  std::string arguments;  // more of its JSON; of the first: empty
};

struct ToolCall {
  std::string id, name, arguments;
};

inline void add(std::vector<ToolCall>& calls, const ToolDelta& delta) {
  if (!delta.id.empty()) calls.push_back({delta.id, delta.name, ""});
  calls.back().arguments += delta.arguments;
}

}  // namespace runahead
